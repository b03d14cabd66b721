"""The folders of runs and sweeps: the names of all files in them, and how to read and write them.

    run = RunDir(Path("runs/demo"))
    run.read_result()["metrics"]["test/rouge1"]
    run.checkpoints.best

No other module contains these file names.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from warmstart.atomic import naming, replacing
from warmstart.damaged_files import read_csv, read_json, read_json_lines, read_text, read_yaml
from warmstart.errors import UserError
from warmstart.locks import locked
from warmstart.runs.result import add_look, check_predictions, check_result, check_skipped_steps, finite, write_result

_OLDER = re.compile(r"last-(\d+)\.ckpt")
_CHECKPOINT_FILE = re.compile(r"(last(-\d+)?|best|top-\d+|nonfinite)\.ckpt|SHA256SUMS")
_PARTIAL_FILE = re.compile(rf"\.({_CHECKPOINT_FILE.pattern})\.\d+\.tmp")


@dataclass(frozen=True)
class CheckpointDir:
    """The folder of a run's checkpoints, or any folder that holds a copied checkpoint and its tokenizers."""

    path: Path

    @property
    def run(self) -> "RunDir":
        """The run of these checkpoints."""
        return RunDir((self.path if self.path.name else self.path.absolute()).parent)

    @property
    def last(self) -> Path:
        """The newest checkpoint, from which a fit resumes."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation score, which a fit evaluates and exports."""
        return self.path / "best.ckpt"

    @property
    def nonfinite(self) -> Path:
        """The last state of a fit that ended because it skipped too many non-finite steps."""
        return self.path / "nonfinite.ckpt"

    @property
    def sums(self) -> Path:
        """SHA-256 checksums of the checkpoints, in the format of ``sha256sum -c``."""
        return self.path / "SHA256SUMS"

    @property
    def tokenizers(self) -> Path:
        """The folder of both tokenizers."""
        return self.path / "tokenizers"

    @property
    def unfinished(self) -> Path:
        """Names the fit that writes these checkpoints, until its result is written."""
        return self.path / "unfinished"

    @property
    def finished(self) -> Path:
        """Names the fit of these checkpoints once it is complete."""
        return self.path / "finished"

    def older(self, age: int) -> Path:
        """Return the path of an older last checkpoint (``trainer.keep_last``); ``age`` 1 is the newest of them."""
        return self.path / f"last-{age}.ckpt"

    def top(self, step: int) -> Path:
        """Return the path of one of the best checkpoints (``trainer.score_best``, ``average_best``), by its step."""
        return self.path / f"top-{step}.ckpt"

    def holds_best(self, path: Path) -> bool:
        """Return whether a path is that of the best checkpoint or of one of the best."""
        return path == self.best or re.fullmatch(r"top-\d+\.ckpt", path.name) is not None

    def newest_first(self) -> list[Path]:
        """Return the existing last checkpoint and older ones, the newest first."""
        ages = sorted(int(found[1]) for path in self.path.glob("last-*.ckpt") if (found := _OLDER.fullmatch(path.name)))
        return [path for path in (self.last, *map(self.older, ages)) if path.exists()]

    def own_files(self) -> list[Path]:
        """Return the checkpoints and checksums that a fit writes; any other file belongs to the user."""
        return [path for path in sorted(self.path.glob("*")) if _CHECKPOINT_FILE.fullmatch(path.name)]

    def partial_files(self) -> list[Path]:
        """Return the incomplete files of a process that was killed while writing a checkpoint."""
        return [path for path in self.path.glob(".*.tmp") if _PARTIAL_FILE.fullmatch(path.name)]


@dataclass(frozen=True)
class RunDir:
    """The folder of one run. Creating the object reads and writes nothing."""

    path: Path

    @classmethod
    def of(cls, path: Path) -> "RunDir":
        """Return the run of a path: the run's folder, a checkpoint file in it, or its export."""
        if path.suffix == ".ckpt":
            return CheckpointDir(path.parent).run
        return cls(path.parent if path.name == cls(path).export.name else path)

    @classmethod
    def below(cls, folder: Path) -> list["RunDir"]:
        """Return every run in or below a folder, sorted by path."""
        found = {mark.parent for mark in folder.rglob("result.json")}
        found |= {mark.parents[1] for mark in folder.rglob(".hydra/config.yaml")}
        return [cls(path) for path in sorted(found)]

    @property
    def checkpoints(self) -> CheckpointDir:
        """The folder of the run's checkpoints and tokenizers."""
        return CheckpointDir(self.path / "checkpoints")

    @property
    def export(self) -> Path:
        """The folder of the exported model."""
        return self.path / "export"

    @property
    def result(self) -> Path:
        """The config, scores and costs of the run. This file is written last."""
        return self.path / "result.json"

    @property
    def previous_result(self) -> Path:
        """The last complete result of an earlier run in this folder."""
        return self.path / "result.previous.json"

    @property
    def looks(self) -> Path:
        """One JSON object per line for each look at the run's test split; see ``warmstart.runs.looks``."""
        return self.path / "test_looks.jsonl"

    @property
    def result_lock(self) -> Path:
        """The lock of a process that changes ``result.json`` or counts a look; held for a moment."""
        return self.path / ".result.lock"

    @property
    def predictions(self) -> Path:
        """Texts and scores of each example of the scored split, one JSON object per line."""
        return self.path / "predictions.jsonl"

    @property
    def metrics(self) -> Path:
        """All logged metrics, one row for each call of the logger."""
        return self.path / "metrics.csv"

    @property
    def samples(self) -> Path:
        """Predictions for some examples of each validation."""
        return self.path / "validation_samples.jsonl"

    @property
    def skipped_steps(self) -> Path:
        """The optimizer steps that were skipped because their loss or gradient was not finite."""
        return self.path / "nonfinite.jsonl"

    @property
    def wandb_id(self) -> Path:
        """The run's id in Weights & Biases, so that a resumed run continues it."""
        return self.path / "wandb_id.txt"

    @property
    def lock(self) -> Path:
        """The lock of the process that writes into this folder."""
        return self.path / ".run.lock"

    @property
    def hydra_config(self) -> Path:
        """The config that Hydra composed for the latest task in this folder."""
        return self.path / ".hydra" / "config.yaml"

    @property
    def hydra_overrides(self) -> Path:
        """The overrides of the latest task in this folder, as they were typed."""
        return self.path / ".hydra" / "overrides.yaml"

    @property
    def set_aside_note(self) -> Path:
        """Marks a folder of set-aside checkpoints. Files are only ever deleted from folders that contain it."""
        return self.path / "set-aside.txt"

    @property
    def is_job_of_sweep(self) -> bool:
        """Whether the folder holds the result of a fit of a sweep, whose config hash is the folder's name."""
        return self.result.exists() and self.read_result().get("config_hash") == self.path.name

    def next_previous(self) -> "RunDir":
        """Return the first unused ``previous-N/``, to which the checkpoints of an earlier fit are moved."""
        return next(RunDir(path) for i in count(1) if not (path := self.path / f"previous-{i}").exists())

    @property
    def top(self) -> Path:
        """The folder with the scores of the best checkpoints (``trainer.score_best``), by rank."""
        return self.path / "top"

    def previous(self) -> "list[RunDir]":
        """Return the folders of set-aside checkpoints that may be deleted."""
        return [RunDir(note.parent) for note in self.path.glob(f"previous-*/{self.set_aside_note.name}")]

    def files_of_fit(self) -> list[Path]:
        """Return the existing files that a fit writes during training.

        ``unfinished`` and ``finished`` come first. If they are moved first, an interruption cannot leave files that
        look like a fit to resume.
        """
        folder = self.checkpoints
        found = [folder.unfinished, folder.finished, *folder.own_files(), folder.tokenizers]
        found += [self.skipped_steps, self.metrics, self.samples, self.top]
        return [path for path in found if path.exists()]

    def write_result(self, result: dict[str, Any]) -> None:
        """Write ``result.json`` completely or not at all; NaN and infinity become null.

        Its ``test_looks`` is at least the number of looks that the folder records.
        """
        with locked(self.result_lock):
            write_result(self.result, self.looks, result)

    def add_look(self, look: dict[str, Any]) -> int:
        """Record a look at the test split, also in ``result.json``, and return the number of all looks."""
        with locked(self.result_lock):
            return add_look(self.result, self.looks, look)

    def read_result(self) -> dict[str, Any]:
        """Read ``result.json``.

        Raises:
            UserError: there is no such file.
            DamagedFile: it is not a JSON object, or a value has the wrong type.
        """
        try:
            return check_result(self.result, read_json(self.result))
        except FileNotFoundError:
            if not self.path.exists():
                raise UserError(f"{self.path} was requested, but there is no such folder. Check the path.") from None
            raise UserError(f"{self.path} has no {self.result.name}: the run did not finish. Run it again.") from None

    @property
    def is_complete(self) -> bool:
        """Whether there is an intact result of a complete run."""
        try:
            return bool(self.read_result().get("status") == "complete")
        except UserError:  # missing or damaged
            return False

    def set_result_aside(self) -> None:
        """Remove an earlier result, so that it cannot pass for the new run's; a complete one is renamed."""
        if not self.result.exists():
            return
        with locked(self.result_lock):
            if self.is_complete:
                self.result.replace(self.previous_result)
            else:
                self.result.unlink(missing_ok=True)

    def restore_result(self) -> None:
        """Undo ``set_result_aside``, unless another process has done so."""
        with suppress(FileNotFoundError):
            self.previous_result.replace(self.result)

    def remove_unused(self) -> None:
        """Delete the folder if it holds nothing but Hydra's config, a log and perhaps a failure.

        A recorded failure is kept with its log, unless that is empty. The two folders above it are deleted too if they
        are then empty.
        """
        ours = (self.path / ".hydra", self.lock, self.result)
        logs = [path for path in self.path.glob("*.log") if not (self.result.exists() and path.stat().st_size)]
        if self.is_complete or {*self.path.iterdir()} - {*ours, *logs}:
            return
        shutil.rmtree(self.path)
        with suppress(OSError):
            self.path.parent.rmdir()
            self.path.parent.parent.rmdir()

    def write_predictions(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write ``predictions.jsonl``.

        Args:
            rows: id, document, reference, prediction and scores of each example.
        """
        with replacing(self.predictions) as file:
            file.writelines(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)

    def read_predictions(self) -> dict[str, dict[str, Any]]:
        """Read the rows of ``predictions.jsonl`` by id; an empty dict if there is no such file.

        Raises:
            DamagedFile: a line is not an object with id, texts and scores.
        """
        try:
            return check_predictions(self.predictions, read_json_lines(self.predictions))
        except FileNotFoundError:
            return {}

    def read_metrics(self) -> list[dict[str, str]]:
        """Read the rows of ``metrics.csv``; an empty list if there is no such file.

        Raises:
            DamagedFile: it is not a CSV file.
        """
        try:
            return read_csv(self.metrics)
        except FileNotFoundError:
            return []

    def add_samples(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows to ``validation_samples.jsonl``."""
        self.path.mkdir(parents=True, exist_ok=True)
        _append(self.samples, rows)

    def add_skipped_step(self, step: int, epoch: int, examples: list[int]) -> None:
        """Append a step to ``nonfinite.jsonl``; ``examples`` are indices into the training split."""
        _append(self.skipped_steps, [{"step": step, "epoch": epoch, "examples": examples}])

    def read_skipped_steps(self, examples: int) -> list[dict[str, Any]]:
        """Read ``nonfinite.jsonl``; an incomplete last line is skipped.

        Args:
            examples: number of examples in the training split.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedFile: a line is not a skipped step, or names an example that does not exist.
        """
        return check_skipped_steps(self.skipped_steps, read_text(self.skipped_steps), examples)

    def read_hydra_config(self) -> dict[str, Any]:
        """Read the config that Hydra composed.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedFile: it is not a mapping.
        """
        found: dict[str, Any] = read_yaml(self.hydra_config)
        return found

    def read_hydra_overrides(self) -> list[str]:
        """Read the overrides as they were typed; an empty list if Hydra has not written them.

        Raises:
            DamagedFile: the file is not a list.
        """
        try:
            return [str(word) for word in read_yaml(self.hydra_overrides, list)]
        except FileNotFoundError:
            return []


@dataclass(frozen=True)
class SweepDir:
    """The folder of a sweep, which contains a folder for each job."""

    path: Path

    @property
    def multirun(self) -> Path:
        """The config of the command that started the sweep."""
        return self.path / "multirun.yaml"

    @property
    def lock(self) -> Path:
        """The lock of the process that runs the search."""
        return self.path / ".search.lock"

    @property
    def study(self) -> Path:
        """Optuna's database of a search."""
        return self.path / "search.db"

    @property
    def best(self) -> Path:
        """The best point of a search, with its value and its run."""
        return self.path / "search.yaml"

    def jobs(self) -> Iterator[RunDir]:
        """Yield the folders of all started jobs, sorted by path."""
        for config in sorted(self.path.glob("*/.hydra/config.yaml")):
            yield RunDir(config.parents[1])


def _append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with naming(path), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
