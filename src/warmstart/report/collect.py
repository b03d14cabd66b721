"""Read all runs below the given folders, whether complete, failed, interrupted, partial or damaged."""

import math
import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from warmstart.config.metrics import SCORES as OF_METRICS
from warmstart.config.metrics import primary_of, split_of
from warmstart.config.schema import CHANGES_NO_NUMBER
from warmstart.damaged_files import DamagedFile
from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir, SweepDir

BITS_PER_BYTE = "bits_per_byte"
LIKELIHOODS = ("nll", BITS_PER_BYTE)
SCORES = (*OF_METRICS, *LIKELIHOODS)
DAMAGED = "damaged"
BEST = RunDir(Path()).checkpoints.best.name  # the checkpoint that a fit evaluates

_NAMES = ("encoder.name", "decoder.name", "data.name")  # used in the labels of rows


@dataclass
class Run:
    """The contents of a run's folder."""

    folder: Path
    status: str
    """complete, failed, interrupted, partial (no result yet) or damaged (a file cannot be read)."""
    result: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    """The flattened config without the seed: dotted keys to values as text."""
    seed: str = ""
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """(step, value) pairs of each logged metric."""
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows of predictions.jsonl, by id."""
    finished: float = 0.0
    """Time at which the result was written, in seconds since 1970."""
    name: str = ""
    """The ``name`` that the user gave this run; empty for a job of a sweep, where it is the name of the sweep."""

    @property
    def command(self) -> str:
        """The command that started the run; empty if the result does not record one, as for a fit from Python."""
        overrides = self.result.get("overrides") or ""
        return overrides if isinstance(overrides, str) else shlex.join(["python", "run.py", *map(str, overrides)])

    @property
    def commit(self) -> str:
        """The commit of the code that ran; empty if the result does not record it."""
        return str(self.result.get("git_commit") or "")

    @property
    def date(self) -> str:
        """When the result was written, in UTC; empty if the run is not complete."""
        return f"{datetime.fromtimestamp(self.finished, UTC):%Y-%m-%d %H:%M} UTC" if self.finished else ""

    @property
    def checkpoint(self) -> str:
        """File name of the evaluated checkpoint; the best one if an old result does not record it."""
        return str(self._judged().get("name", BEST))

    @property
    def checkpoint_sha256(self) -> str | None:
        """Checksum of the evaluated checkpoint's file; None if the result does not record it."""
        return self._judged().get("sha256")

    @property
    def error(self) -> str:
        """Why there is no result."""
        return str(self.result.get("error") or "it has not finished: the same command resumes it")

    def validation(self, metric: str) -> float | None:
        """Return a validation score of the best checkpoint; None without one.

        Args:
            metric: Name of the score. If the fit did not monitor it, its value at the best step is used.
        """
        best = self.result.get("validation") or {}
        monitor = best.get("monitor")
        if metric == monitor:
            return best.get("best")
        monitored, wanted = self.curves.get(str(monitor), []), dict(self.curves.get(metric, []))
        if not monitored:
            return None
        step, _ = (min if best.get("mode") == "min" else max)(monitored, key=lambda point: point[1])
        return wanted.get(step)

    @property
    def is_evaluation(self) -> bool:
        """Whether ``task=evaluate`` wrote the result."""
        config = self.result.get("config")
        return isinstance(config, dict) and config.get("task") == "evaluate"

    @property
    def is_tested(self) -> bool:
        """Whether the test split was scored."""
        return f"test/{self.primary}" in self.result.get("metrics", {})

    @property
    def split(self) -> str:
        """The split of predictions, baselines and controls: ``validation`` if the test split was not scored."""
        return split_of(self.result.get("metrics", {}))

    @property
    def looks(self) -> int | None:
        """How often the test split of the model's run was scored; None if an earlier release did not record it."""
        return self.result.get("test_looks")

    @property
    def primary(self) -> str:
        """The score that decides comparisons: ROUGE-1, unless ``evaluation.metrics`` begins with another metric."""
        return primary_of(self.signatures)

    @property
    def signatures(self) -> list[str]:
        """What decides the scores of each metric; empty if an earlier release scored the run."""
        return self.result.get("signatures") or []

    def _judged(self) -> dict[str, Any]:
        return self.result.get("checkpoint") or {}


def collect(folders: list[Path]) -> list[Run]:
    """Read every run in or below the folders, each once, sorted by path.

    Raises:
        UserError: A folder does not exist or contains no run.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"A report of {folder} was requested, but there is no such folder. Check sweep or runs.")
        runs = [run for run_dir in RunDir.below(folder) if (run := _read(run_dir)) is not None]
        if not runs:
            raise UserError(
                f"A report of {folder} was requested, but it contains no run. Choose the folder of a run or a sweep."
            )
        found |= {run.folder.resolve(): run for run in runs}
    collected = list(found.values())
    _take_training_options(collected)
    return collected


def _take_training_options(runs: list[Run]) -> None:
    """Give each evaluation the training options of the fit of its checkpoint; without that, of its first evaluation.

    An evaluation reads none of them, so its own values, such as another ``trainer.devices``, change no number.
    """
    by_weights: dict[str, list[Run]] = {}
    for run in runs:
        if run.checkpoint_sha256 is not None:
            by_weights.setdefault(run.checkpoint_sha256, []).append(run)
    for same in by_weights.values():
        first = min(same, key=lambda run: (run.is_evaluation, run.finished))
        trained = {key: value for key, value in first.choices.items() if _is_of_training(key)}
        for run in same:
            if run.is_evaluation:
                run.choices = {k: v for k, v in run.choices.items() if not _is_of_training(k)} | trained


def _is_of_training(key: str) -> bool:
    return key.startswith(("trainer.", "optim.", "data.batch.")) or key == "ckpt_weights"


def _read(run_dir: RunDir) -> Run | None:
    """Read the run in a folder; None if the folder is of a task other than fit or evaluate."""
    folder, damage = run_dir.path, None
    try:
        result = run_dir.read_result()
    except DamagedFile as error:
        damage, result = error, {}
    except UserError:  # no result yet
        result = {}
    config: Any = result.get("config")
    if config is None:
        try:
            config = run_dir.read_hydra_config()
        except FileNotFoundError:
            config = {}
        except DamagedFile as error:
            damage, config = damage or error, {}
        if config.get("task", "fit") != "fit":
            return None
    choices = {key: value for key, value in _flat(config).items() if _is_choice(key)}
    seed = choices.pop("seed", str(result.get("seed", "")))
    name = _own_name(folder, config, result)
    run = Run(folder, str(result.get("status", "partial")), result, choices, seed, name=name)
    try:
        run.curves = _curves(run_dir)
        if run.status == "complete":
            run.finished = run_dir.result.stat().st_mtime
            run.examples = run_dir.read_predictions()
    except DamagedFile as error:
        damage = damage or error
    if damage is not None:
        return Run(folder, DAMAGED, {"error": str(damage)}, choices, seed, run.curves, name=name)
    return run


def _own_name(folder: Path, config: Any, result: dict[str, Any]) -> str:
    of_sweep = any(SweepDir(above).multirun.exists() for above in list(folder.parents)[:2])
    is_job = of_sweep or result.get("config_hash") == folder.name
    return "" if is_job or not isinstance(config, dict) else str(config.get("name") or "")


def _is_choice(key: str) -> bool:
    """Return whether an option affects results, or is the name of a choice that does."""
    no_choices = (*CHANGES_NO_NUMBER, "evaluation.test")  # does not change the model
    return key in _NAMES or not any(key == one or key.startswith(f"{one}.") for one in no_choices)


def _flat(config: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(config, dict):
        return {prefix: str(config)}
    flat: dict[str, str] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _curves(run_dir: RunDir) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in run_dir.read_metrics():
        for name, text in row.items():
            if not name.startswith(("train/", "validation/")) or not text:
                continue
            try:
                step, value = int(row.get("step") or 0), float(text)
            except ValueError:  # an incomplete row of a killed run
                continue
            if math.isfinite(value):
                curves.setdefault(name, []).append((step, value))
    return curves
