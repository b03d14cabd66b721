"""What a run leaves for others to read: predictions.jsonl, and result.json written last and whole or not at all."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import Any

from warmstart.atomic import replacing
from warmstart.damaged_files import DamagedFile, read_json, read_json_lines
from warmstart.errors import UserError

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


def write_result(run_dir: Path, result: dict[str, Any]) -> Path:
    """Write ``result.json`` under a temporary name, sync it and rename it into place; NaN and infinity become null."""
    path = run_dir / "result.json"
    with replacing(path) as file:
        file.write(json.dumps(_finite(result), indent=2, sort_keys=True) + "\n")
    return path


def set_result_aside(run_dir: Path) -> None:
    """Take away the result of an earlier run in this directory, which could be taken for that of a new one.

    The last complete one is kept as ``result.previous.json``.
    """
    path = run_dir / "result.json"
    if is_complete(run_dir):
        path.replace(run_dir / "result.previous.json")
    else:
        path.unlink(missing_ok=True)


def write_predictions(run_dir: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """One JSON object a line: id, document, reference, prediction and its ROUGE scores."""
    path = run_dir / "predictions.jsonl"
    with replacing(path) as file:
        file.writelines(json.dumps(_finite(row), ensure_ascii=False) + "\n" for row in rows)
    return path


def read_result(run_dir: Path) -> dict[str, Any]:
    """The result of a run.

    Raises:
        UserError: there is none.
        DamagedFile: it is not an object of JSON, or a part of it is not of the type that a run writes.
    """
    path = run_dir / "result.json"
    try:
        result = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{run_dir} holds no result.json: the run did not finish. Run it again.") from None
    for part, kinds in _PARTS.items():
        *groups, name = part.split(".")
        within = result.get(groups[0]) or {} if groups else result
        if not isinstance(within.get(name), kinds):
            raise DamagedFile(path, f"{part} is a {type(within.get(name)).__name__}")
    for part in ("baselines", "controls"):
        if not all(isinstance(row, dict) for row in (result.get(part) or {}).values()):
            raise DamagedFile(path, f"{part} holds more than scores by name")
    return {name: value for name, value in result.items() if value is not None or name not in _GROUPS}


def read_predictions(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The rows of ``predictions.jsonl`` by id; of a run without one, none.

    Raises:
        DamagedFile: a line is not a row that a run writes.
    """
    path = run_dir / "predictions.jsonl"
    try:
        rows = read_json_lines(path)
    except FileNotFoundError:
        return {}
    for number, row in enumerate(rows, 1):
        texts = all(isinstance(row.get(name), str) for name in ("document", "reference", "prediction"))
        scores = [row[name] for name in row if name in _SCORES or "/" in name]
        if not texts or "id" not in row or not all(isinstance(score, _NUMBER) for score in scores):
            raise DamagedFile(path, f"line {number}: not a row of id, texts and scores")
    return {str(row["id"]): row for row in rows}


def is_complete(run_dir: Path) -> bool:
    """Whether a run's result is there and whole, and not that of a failure."""
    try:
        return bool(read_result(run_dir).get("status") == "complete")
    except UserError:  # none is there, or a damaged one
        return False


def _finite(value: Any) -> Any:
    """JSON has no NaN: Python writes one that other readers refuse."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
