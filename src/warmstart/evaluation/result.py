"""What a run leaves for others to read: predictions.jsonl, and result.json written last and whole or not at all."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from warmstart.atomic import replacing
from warmstart.errors import UserError

# Keys of a config that name something, or say where a run lies, logs or shows itself, and change no number.
CHANGES_NO_NUMBER = (
    *("task", "name", "output_root", "ckpt", "input", "output", "runs", "texts", "device", "logger", "host", "port"),
    *("encoder.name", "decoder.name", "data.name"),
    *("trainer.progress_bar", "trainer.log_every", "trainer.save_every", "trainer.keep_last", "trainer.skip_limit"),
    "trainer.timeout_minutes",
    *("data.cache_dir", "data.processes", "data.batch.workers"),
)


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
        UserError: there is none, or it is not JSON.
    """
    path = run_dir / "result.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{run_dir} holds no result.json: the run did not finish. Run it again.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}). Run the evaluation again.") from None


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
