"""Decide which checkpoint a fit resumes from, and set aside the checkpoints of an earlier fit.

``checkpoints/unfinished`` identifies the fit that wrote the checkpoints (its mark). It is renamed to ``finished`` once
the result is written. A fit that starts over moves the checkpoints of an earlier fit to ``previous-N/``, and deletes
them once it is complete. Files that no fit writes are never moved.
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
    """Return the text that identifies a fit: its config hash and, if it started from another run, that checkpoint."""
    if settings.ckpt in (None, "last", "new") or is_of_run(Path(settings.ckpt), run_dir):
        return digest
    return f"{digest} from {Path(settings.ckpt).resolve()}"


def is_of_run(path: Path, run_dir: RunDir) -> bool:
    """Return whether ``path`` is the run's folder or a file in its ``checkpoints/``."""
    return run_dir.path.resolve() in (path.resolve(), path.resolve().parent.parent)


def finished_result(settings: Config, run_dir: RunDir, digest: str) -> dict[str, Any] | None:
    """Return the result of the same fit if it is already complete; None if there is something to train."""
    folder, mark = run_dir.checkpoints, mark_of(settings, run_dir, digest)
    repeated = settings.ckpt is None or mark != digest
    if not repeated or folder.unfinished.exists() or not run_dir.is_complete:
        return None
    result = run_dir.read_result()
    # Runs of earlier versions have no mark; their result has the config hash.
    if (_text(folder.finished) or result.get("config_hash")) != mark:
        return None
    _log.info("Already complete, not run again: %s. To start over, set ckpt=new.", run_dir.path)
    return result


def checkpoint_to_resume(settings: Config, run_dir: RunDir, digest: str) -> str | None:
    """Return the checkpoint to resume from, or None to start over.

    It is the one that ``ckpt`` names. If ``ckpt`` is not set, it is the newest one of the same fit.

    Args:
        settings: the config.
        run_dir: the run directory.
        digest: the config hash.

    Raises:
        UserError: there is no such checkpoint, or ``ckpt`` is not set and the folder holds another fit.
    """
    from warmstart.runs.checkpoint_io import newest_sound

    folder, mark = run_dir.checkpoints, mark_of(settings, run_dir, digest)
    held, complete = _text(folder.unfinished), False
    if held is None:
        complete = run_dir.is_complete
        held = _text(folder.finished) or (run_dir.read_result().get("config_hash") if complete else None)
    if settings.ckpt == "new":
        requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0  # before, this job has already started over
        saved = newest_sound(folder.path) if requeued and _text(folder.unfinished) == mark else None
        return saved if saved is None else str(saved)
    is_repeated = settings.ckpt is None or mark != digest
    if is_repeated and held == mark and (path := newest_sound(folder.path)) is not None:
        _log.info("Resuming from %s. To start over, set ckpt=new.", path)
        return str(path)
    if settings.ckpt is None:
        if held not in (None, mark) and newest_sound(folder.path) is not None:
            kind = "a complete" if complete else "an unfinished"
            raise UserError(
                f"{run_dir.path} contains {kind} run with another config, or from another checkpoint. Set ckpt=last to "
                "resume it with this config, or ckpt=new to start over; its checkpoints are deleted once the new run "
                "is complete. Or set another name=."
            )
        return None
    given = run_dir.path if settings.ckpt == "last" else Path(settings.ckpt)
    found = newest_sound(RunDir(given).checkpoints.path) if given.is_dir() else given
    if found is None or not found.is_file():
        missing = f"{given} has no checkpoints/last.ckpt" if given.is_dir() else f"{given} does not exist"
        remedy = "Set name= to the run to resume." if settings.ckpt == "last" else "Name a run or a .ckpt file."
        raise UserError(f"ckpt={settings.ckpt} was requested, but {missing}. {remedy}")
    return str(found)


def check_nothing_left(settings: Config, run_dir: RunDir, checkpoint: Path, taken: int, epoch: int) -> None:
    """Check that a fit may resume from a checkpoint that has taken all of its steps.

    It may if the checkpoint is the end of this very fit, which is then only scored.

    Args:
        settings: the config.
        run_dir: the run directory.
        checkpoint: the checkpoint to resume from.
        taken: optimizer steps that it has taken.
        epoch: epochs that it has trained.

    Raises:
        UserError: it is the checkpoint of another run, or has gone beyond the end of this fit.
    """
    trainer = settings.trainer
    is_past_end = epoch > trainer.max_epochs or 0 < trainer.max_steps < taken
    if is_of_run(checkpoint, run_dir) and not is_past_end:
        _log.info("%s has taken all %d steps. Nothing is trained; the test split is scored.", checkpoint, taken)
        return
    limits = f"trainer.max_epochs={trainer.max_epochs}"
    limits += f", trainer.max_steps={trainer.max_steps}" if trainer.max_steps > 0 else ""
    raise UserError(
        f"ckpt={settings.ckpt} has already taken {taken} steps in {epoch} epochs, but this fit ends at {limits}: "
        "nothing would be trained. To train longer, raise them; both include those steps. To score the model, use "
        "task=evaluate."
    )


def begin(run_dir: RunDir, mark: str, resume: str | None) -> None:
    """Prepare the folder of checkpoints for a fit.

    Checkpoints of an earlier fit are set aside, unless the fit resumes from one of them.

    Args:
        run_dir: the run directory.
        mark: the mark of the fit (``mark_of``).
        resume: the checkpoint to resume from, if any.
    """
    folder = run_dir.checkpoints
    if resume is None or Path(resume).resolve().parent != folder.path.resolve():
        _set_aside(run_dir)
    for path in folder.partial_files():
        path.unlink(missing_ok=True)
    write_text(folder.unfinished, mark + "\n")
    folder.finished.unlink(missing_ok=True)


def finish(run_dir: RunDir) -> None:
    """Mark the fit as complete, and delete checkpoints that are no longer needed.

    These are the ones of earlier fits that were set aside, and those before the last (``trainer.keep_last``).
    """
    from warmstart.runs.checkpoint_io import delete_older

    run_dir.checkpoints.unfinished.replace(run_dir.checkpoints.finished)
    delete_older(run_dir.checkpoints.path)
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
    """Move the checkpoints of an earlier fit, and its other files, to ``previous-N/``, which ``ckpt`` can name."""
    files = run_dir.files_of_fit()
    if not any(path.suffix == ".ckpt" for path in files):  # that fit ended before its first checkpoint
        for path in files:
            if not path.is_dir():
                path.unlink(missing_ok=True)
        return
    aside = run_dir.next_previous()
    aside.checkpoints.path.mkdir(parents=True)
    write_text(
        aside.set_aside_note,
        f"Checkpoints of an earlier fit in {run_dir.path.name}. They are deleted once the fit that replaces them is "
        "complete. To keep them, move this folder elsewhere or delete this file.\n",
    )
    _log.info("Moved the checkpoints of an earlier fit to %s; they are deleted once this fit is complete.", aside.path)
    for path in files:
        shutil.move(path, aside.path / path.relative_to(run_dir.path))  # checkpoints/ may be a link to another disk


def _text(file: Path) -> str | None:
    return file.read_text().strip() if file.exists() else None
