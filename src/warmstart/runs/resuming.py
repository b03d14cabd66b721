"""What a fit finds in its folder: which checkpoint it resumes, and what happens to those of an earlier fit.

``checkpoints/unfinished`` holds the mark of the fit that the checkpoints are of, and becomes ``checkpoints/finished``
once its result is written. A fit that starts over moves the checkpoints of an earlier one to ``previous-N/`` and
deletes them when it is complete itself. Files that no fit writes stay where they are.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from warmstart.atomic import write_text
from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir

_log = logging.getLogger(__name__)


def mark_of(settings: Config, run_dir: RunDir, digest: str) -> str:
    """Return which fit it is: the same for the same command, also where that starts from another run's checkpoint."""
    if settings.ckpt in (None, "last", "new") or is_of_run(Path(settings.ckpt), run_dir):
        return digest
    return f"{digest} from {Path(settings.ckpt).resolve()}"


def is_of_run(path: Path, run_dir: RunDir) -> bool:
    """Whether ``path`` is the run's folder or a file in its ``checkpoints/``."""
    return run_dir.path.resolve() in (path.resolve(), path.resolve().parent.parent)


def finished_result(settings: Config, run_dir: RunDir, digest: str) -> dict[str, Any] | None:
    """The result of this very fit if it is complete, which is logged; None where there is something to train."""
    folder, mark = run_dir.checkpoints, mark_of(settings, run_dir, digest)
    repeated = settings.ckpt is None or mark != digest
    if not repeated or folder.unfinished.exists() or not run_dir.is_complete:
        return None
    result = run_dir.read_result()
    # A run of an earlier version has no mark, and only its result says what it is.
    if (_text(folder.finished) or result.get("config_hash")) != mark:
        return None
    _log.info("Complete already, not run again: %s. ckpt=new starts over.", run_dir.path)
    return result


def checkpoint_to_resume(settings: Config, run_dir: RunDir, digest: str) -> str | None:
    """The checkpoint that ``ckpt`` names; without it, the newest of this very fit if that was interrupted.

    Raises:
        UserError: ``ckpt`` names no checkpoint, or is not set and ``run_dir`` holds checkpoints of another fit.
    """
    from warmstart.runs.checkpoint_io import newest_sound

    folder, mark = run_dir.checkpoints, mark_of(settings, run_dir, digest)
    held, complete = _text(folder.unfinished), False
    if held is None:
        complete = run_dir.is_complete
        held = _text(folder.finished) or (run_dir.read_result().get("config_hash") if complete else None)
    if settings.ckpt == "new":
        back_from_queue = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0  # it may have started over already
        saved = newest_sound(folder.path) if back_from_queue and _text(folder.unfinished) == mark else None
        return saved if saved is None else str(saved)
    this_command = settings.ckpt is None or mark != digest
    if this_command and held == mark and (path := newest_sound(folder.path)) is not None:
        _log.info("Resuming from %s; ckpt=new starts over.", path)
        return str(path)
    if settings.ckpt is None:
        if held not in (None, mark) and newest_sound(folder.path) is not None:
            kind = "a complete" if complete else "an unfinished"
            raise UserError(
                f"{run_dir.path} holds {kind} run of another config, or from another checkpoint. Set ckpt=last to "
                "resume it with this config, ckpt=new to start over and delete its checkpoints once the new run is "
                "complete, or another name=."
            )
        return None
    given = run_dir.path if settings.ckpt == "last" else Path(settings.ckpt)
    found = newest_sound(RunDir(given).checkpoints.path) if given.is_dir() else given
    if found is None or not found.is_file():
        missing = f"{given} holds no checkpoints/last.ckpt" if given.is_dir() else f"{given} is not there"
        way_on = "Set name= to the run to resume" if settings.ckpt == "last" else "Name a run directory or a .ckpt file"
        raise UserError(f"ckpt={settings.ckpt} was requested, but {missing}. {way_on}.")
    return str(found)


def begin(run_dir: RunDir, mark: str, resume: str | None) -> None:
    """Note whose checkpoints these are; a fit that resumes none of them first sets those of an earlier one aside."""
    folder = run_dir.checkpoints
    if resume is None or Path(resume).resolve().parent != folder.path.resolve():
        _set_aside(run_dir)
    for path in folder.partial_files():
        path.unlink(missing_ok=True)
    write_text(folder.unfinished, mark + "\n")
    folder.finished.unlink(missing_ok=True)


def finish(run_dir: RunDir) -> None:
    """Note that the fit is complete, and delete the checkpoints that it has replaced."""
    run_dir.checkpoints.unfinished.replace(run_dir.checkpoints.finished)
    for previous in run_dir.previous():
        for path in (*previous.files_of_fit(), previous.set_aside_note):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for emptied in (previous.checkpoints.path, previous.path):
            if emptied.is_dir() and not any(emptied.iterdir()):
                emptied.rmdir()


def _set_aside(run_dir: RunDir) -> None:
    """Move the checkpoints of an earlier fit, and what belongs to them, to a folder that ``ckpt=`` can name."""
    files = run_dir.files_of_fit()
    if not any(path.suffix == ".ckpt" for path in files):  # it has ended before its first checkpoint
        for path in files:
            if not path.is_dir():
                path.unlink(missing_ok=True)
        return
    aside = run_dir.next_previous()
    aside.checkpoints.path.mkdir(parents=True)
    write_text(
        aside.set_aside_note,
        f"Checkpoints of an earlier fit in {run_dir.path.name}. The fit that replaces them deletes them when it is "
        "complete; to keep them, move this folder elsewhere or delete this file.\n",
    )
    _log.info("The checkpoints of an earlier fit stay in %s until this one is complete.", aside.path)
    for path in files:
        shutil.move(path, aside.path / path.relative_to(run_dir.path))  # checkpoints/ may be a link to another disk


def _text(file: Path) -> str | None:
    return file.read_text().strip() if file.exists() else None
