"""Check the format of ``result.json`` and ``predictions.jsonl`` when they are read."""

import math
from pathlib import Path
from types import NoneType
from typing import Any

from warmstart.config.metrics import SCORES
from warmstart.damaged_files import DamagedFile

_NUMBER = (int, float, NoneType)
_SCORES = (*SCORES, "nll")
_GROUPS = (
    *("choices", "metrics", "baselines", "controls", "parameters", "seconds", "throughput", "versions"),
    *("validation", "checkpoint", "config", "generation", "paper"),
)
_PARTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_GROUPS, (dict, NoneType)),
    **dict.fromkeys(("status", "config_hash", "checkpoint.name", "checkpoint.sha256"), (str, NoneType)),
    **dict.fromkeys(("validation.monitor", "validation.mode", "paper.source"), (str, NoneType)),
    "paper.scores": (dict, NoneType),
    "validation.best": _NUMBER,
    "signatures": (list, NoneType),
}


def check_result(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Check the contents of ``result.json``.

    Args:
        path: the file, for the message.
        result: its contents.

    Returns:
        The contents without groups that are null.

    Raises:
        DamagedFile: a value has the wrong type.
    """
    for part, kinds in _PARTS.items():
        *groups, name = part.split(".")
        within = result.get(groups[0]) or {} if groups else result
        if not isinstance(within.get(name), kinds):
            raise DamagedFile(path, f"{part} is a {type(within.get(name)).__name__}")
    for part in ("baselines", "controls"):
        if not all(isinstance(row, dict) for row in (result.get(part) or {}).values()):
            raise DamagedFile(path, f"{part} is not a mapping of scores")
    return {name: value for name, value in result.items() if value is not None or name not in _GROUPS}


def check_predictions(path: Path, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Check the rows of ``predictions.jsonl``.

    Args:
        path: the file, for the message.
        rows: its rows.

    Returns:
        The rows by id.

    Raises:
        DamagedFile: a row lacks its id or a text, or a score is not a number.
    """
    for number, row in enumerate(rows, 1):
        texts = all(isinstance(row.get(name), str) for name in ("document", "reference", "prediction"))
        scores = [row[name] for name in row if name in _SCORES or "/" in name]
        if not texts or "id" not in row or not all(isinstance(score, _NUMBER) for score in scores):
            raise DamagedFile(path, f"line {number}: not an object with id, texts and scores")
    return {str(row["id"]): row for row in rows}


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None. Python would write them to JSON, which other readers reject."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
