"""Write ``result.json`` with the number of looks at the test split; check files of a run when they are read."""

import json
import math
import os
from pathlib import Path
from types import NoneType
from typing import Any

from warmstart.atomic import replacing
from warmstart.config.metrics import SCORES
from warmstart.damaged_files import DamagedFile, read_json, read_text

_NUMBER = (int, float, NoneType)
_SCORES = (*SCORES, "nll", "bits_per_byte")
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
    "test_looks": (int, NoneType),
}


def write_result(path: Path, looks: Path, result: dict[str, Any]) -> None:
    """Write ``result.json``; its ``test_looks`` is at least the number of looks that ``looks`` records.

    Args:
        path: the file.
        looks: ``test_looks.jsonl`` of the same folder, which may be missing. The caller holds the lock of both.
        result: the contents.
    """
    if recorded := len(_read_looks(looks)):
        result = result | {"test_looks": max(recorded, result.get("test_looks") or 0)}
    with replacing(path) as file:
        file.write(json.dumps(finite(result), indent=2, sort_keys=True) + "\n")


def add_look(path: Path, looks: Path, look: dict[str, Any]) -> int:
    """Record a look at the test split, and update the number in ``result.json`` if there is one.

    A result of an earlier release, which recorded no looks, counts as one if it has test scores.

    Args:
        path: ``result.json``. It keeps its time, by which reports find the newest result.
        looks: ``test_looks.jsonl`` of the same folder. The caller holds the lock of both.
        look: what to record.

    Returns:
        The number of looks.
    """
    try:
        result, status = check_result(path, read_json(path)), path.stat()
    except (FileNotFoundError, DamagedFile):
        result, status = {}, None
    lines = _read_looks(looks)
    if not lines and any(name.startswith("test/") for name in result.get("metrics", {})):
        lines = [json.dumps({"result": str(path.parent)})]
    lines.append(json.dumps(look))
    with replacing(looks) as file:
        file.writelines(f"{line}\n" for line in lines)
    if status is not None:
        write_result(path, looks, result)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return len(lines)


def _read_looks(looks: Path) -> list[str]:
    try:
        return [line for line in read_text(looks, errors="replace").split("\n") if line.strip()]
    except FileNotFoundError:
        return []


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
        DamagedFile: a row lacks its id or a text, a score is not a number, or two rows have the same id.
    """
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        texts = all(isinstance(row.get(name), str) for name in ("document", "reference", "prediction"))
        scores = [row[name] for name in row if name in _SCORES or "/" in name]
        if not texts or "id" not in row or not all(isinstance(score, _NUMBER) for score in scores):
            raise DamagedFile(path, f"line {number}: not an object with id, texts and scores")
        if (first := lines.setdefault(str(row["id"]), number)) != number:
            raise DamagedFile(
                path,
                f"lines {first} and {number} have the same id {row['id']!r:.60}. Score the run again, which gives each "
                "example its own id: python run.py task=evaluate ckpt=FOLDER_OF_THE_FIT",
            )
    return {str(row["id"]): row for row in rows}


def check_skipped_steps(path: Path, text: str, examples: int) -> list[dict[str, Any]]:
    """Parse ``nonfinite.jsonl``; an incomplete last line is skipped.

    Args:
        path: the file, for the message.
        text: its contents.
        examples: number of examples in the training split.

    Raises:
        DamagedFile: a line is not a skipped step, or names an example that does not exist.
    """
    *lines, _ = text.split("\n")
    steps = []
    for number, line in enumerate(lines, 1):
        try:
            step = json.loads(line)
            is_valid = all(type(i) is int and 0 <= i < examples for i in step["examples"]) and "step" in step
        except (ValueError, RecursionError, LookupError, TypeError):
            is_valid = False
        if not is_valid:
            raise DamagedFile(path, f"line {number}: not a skipped step of this training data")
        steps.append(step)
    return steps


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None. Python would write them to JSON, which other readers reject."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
