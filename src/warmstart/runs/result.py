"""The format of ``result.json`` and ``predictions.jsonl``, which is checked whenever they are read."""

import math
from pathlib import Path
from types import NoneType
from typing import Any

from warmstart.damaged_files import DamagedFile

_NUMBER = (int, float, NoneType)
_SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum", "nll")
_GROUPS = (
    *("choices", "metrics", "baselines", "controls", "parameters", "seconds", "throughput", "versions"),
    *("validation", "checkpoint", "config", "generation"),
)
_PARTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_GROUPS, (dict, NoneType)),
    **dict.fromkeys(("status", "config_hash", "checkpoint.name", "checkpoint.sha256"), (str, NoneType)),
    **dict.fromkeys(("validation.monitor", "validation.mode"), (str, NoneType)),
    "validation.best": _NUMBER,
}


def check_result(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Return what ``result.json`` at ``path`` holds, without the groups that are null.

    Raises:
        DamagedFile: a part of it is not of the type that a run writes.
    """
    for part, kinds in _PARTS.items():
        *groups, name = part.split(".")
        within = result.get(groups[0]) or {} if groups else result
        if not isinstance(within.get(name), kinds):
            raise DamagedFile(path, f"{part} is a {type(within.get(name)).__name__}")
    for part in ("baselines", "controls"):
        if not all(isinstance(row, dict) for row in (result.get(part) or {}).values()):
            raise DamagedFile(path, f"{part} holds more than scores by name")
    return {name: value for name, value in result.items() if value is not None or name not in _GROUPS}


def check_predictions(path: Path, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the rows of ``predictions.jsonl`` at ``path`` by id.

    Raises:
        DamagedFile: a line is not a row that a run writes.
    """
    for number, row in enumerate(rows, 1):
        texts = all(isinstance(row.get(name), str) for name in ("document", "reference", "prediction"))
        scores = [row[name] for name in row if name in _SCORES or "/" in name]
        if not texts or "id" not in row or not all(isinstance(score, _NUMBER) for score in scores):
            raise DamagedFile(path, f"line {number}: not a row of id, texts and scores")
    return {str(row["id"]): row for row in rows}


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None: Python writes them into JSON, and other readers refuse them."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
