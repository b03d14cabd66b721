"""Count the looks at the test split of a run.

    run = run_of_test_split(saved, settings)
    looks = count_look(run, saved.identity, result_folder)

A look is an evaluation of one of the run's checkpoints on the run's own test split, at the end of its fit or later, in
whichever folder its result is. A choice that was made after many looks fits the test split, so the number stands in
``result.json`` (``test_looks``), in the table and in reports. It belongs to the run's folder: it also survives a fit
that starts over there.
"""

import errno
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from warmstart.config.schema import Config, plain
from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel

# What a test split consists of; a limit takes a part of the same split.
_OF_SPLIT = ("kind", "path", "subset", "revision", "train_path", "test_path", "splits.test")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_log = logging.getLogger(__name__)


def run_of_test_split(saved: SavedModel, settings: Config) -> RunDir | None:
    """Return the run whose test split an evaluation scores.

    Args:
        saved: the evaluated model.
        settings: the config of the evaluation, with the data that is scored.

    Returns:
        The model's run. None if the model is outside of a run, or if the texts are not those of the run's data.
    """
    run = RunDir.of(Path(saved.given).absolute()) if saved.is_export else saved.checkpoints.run
    if run.set_aside_note.exists():  # checkpoints of an earlier fit in the run's folder
        run = RunDir(run.path.parent)
    if not any(mark.exists() for mark in (run.result, run.hydra_config, run.checkpoints.unfinished)):
        return None
    recorded: dict[str, Any] = saved.config.get("data", {})
    if "kind" not in recorded:  # an export
        try:
            recorded = (run.read_result().get("config") or {}).get("data") or {}
        except UserError:
            recorded = {}
    scored = _flat(plain(settings)["data"])
    recorded = _flat(recorded)
    return run if all(_same(scored.get(name), recorded[name]) for name in _OF_SPLIT if name in recorded) else None


def count_look(run: RunDir, checkpoint: dict[str, str], result_folder: Path) -> int | None:
    """Record an evaluation on the test split of a run.

    Args:
        run: the run.
        checkpoint: name and checksum of the evaluated weights.
        result_folder: the folder of the evaluation's result.

    Returns:
        The number of looks, with this one. None if the run's folder is read-only, which is logged.
    """
    time = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        return run.add_look({"time": time, "checkpoint": checkpoint, "result": str(result_folder)})
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        _log.warning("%s is read-only, so this look at its test split is not counted.", run.path)
        return None


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ``data`` with ``splits.test`` as a key."""
    return data | {f"splits.{name}": value for name, value in (data.get("splits") or {}).items()}


def _same(scored: Any, recorded: Any) -> bool:
    """Return whether two values of an option are equal, or two paths of one file."""
    if scored == recorded or not (isinstance(scored, str) and isinstance(recorded, str)):
        return bool(scored == recorded)
    return Path(scored).expanduser().resolve() == Path(recorded).expanduser().resolve()
