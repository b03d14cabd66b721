"""Hyperparameter search with Optuna; the same command resumes it.

    python run.py -m sweep=rates
    optuna-dashboard sqlite:///runs/multirun/rates/search.db

A point of the space is a job like those of a grid: it has a folder named by the hash of its config, and its value is
the best validation score (``trainer.monitor``). An interrupted trial resumes from its checkpoint, a failed point is
tried again, and no point is proposed twice. Proposals only depend on the seed and on the known points, so an
interrupted search proposes the same points as an uninterrupted one.

Trials do not read the test split (``evaluation.test=false``); at their end they score the validation split. At the end
of the search, a job of ``task=evaluate`` in the sweep's folder scores the best run on the test split, once. If the
command line sets ``evaluation.test``, all trials follow it, and there is no such job.
"""

import logging
import math
import os
import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import optuna
import sqlalchemy
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from warmstart.atomic import write_text
from warmstart.config.metrics import TITLES, primary_of
from warmstart.config.model import SELECTOR, Embeddings
from warmstart.errors import UserError, listed
from warmstart.locks import Lock
from warmstart.printing import say
from warmstart.runs.run_dir import RunDir, SweepDir
from warmstart.runs.saved_model import SavedModel

_log = logging.getLogger(__name__)
_UNTESTED = "evaluation.test=false"
# Points that differ in one of these are scored on other validation texts.
_OTHER_TEXTS = (
    *("data", "data.kind", "data.path", "data.validation_path", "data.limit_validation", "data.objective"),
    *("data.raw_targets", "trainer.validation_samples"),
)
_OTHER_LABELS = ("data.max_target_length", "data.target_form")
_MAYBE_OTHER_LABELS = ("decoder", "decoder.path", "decoder.tokenizer", "bridge.embeddings", "experiment")
_OF_ENCODER = ("encoder", "encoder.path", "encoder.tokenizer")  # decide the labels if its tokenizer writes them
_COPIES = "copied_embeddings"  # the choice of bridge whose decoder writes with the encoder's tokenizer
_PROPOSALS = 50  # attempts to find a new point; a sampler can repeat itself

Space = dict[str, BaseDistribution]
Point = dict[str, Any]


def search(sweeper: Any, arguments: list[str]) -> float:
    """Run or resume a search.

    Args:
        sweeper: a ``hydra_plugins.warmstart_search.SearchSweeper``.
        arguments: overrides of the command line.

    Returns:
        The best value; NaN if no point has one.

    Raises:
        UserError: the space or a setting is invalid, another process searches here, or the study has another space.
    """
    space, fixed = _space(sweeper, arguments)
    _check_comparable(space, sweeper.config)
    scores_winner = not any(word.lstrip("+").startswith("evaluation.test=") for word in fixed)
    if scores_winner:
        fixed.append(_UNTESTED)
        _log.info(
            "Points are compared by %s. The test split is scored once, at the end, for the best run (%s).",
            *(sweeper.config.trainer.monitor, _UNTESTED),
        )
    folder = Path(str(sweeper.config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(SweepDir(folder).multirun, OmegaConf.to_yaml(sweeper.config))
    lock = Lock(SweepDir(folder).lock)
    if not lock.acquire(wait=False):
        holder = lock.holder() or "process"
        raise UserError(f"Another {holder} searches in {folder}. Wait until it ends, or set another name=.")
    try:
        study = _study(sweeper, folder, space, has_flock=lock.has_flock)
        failures: list[Any] = []
        for interrupted in study.get_trials(states=(TrialState.RUNNING,)):
            if interrupted.params.keys() != space.keys():  # the process was killed while proposing it
                study.tell(interrupted.number, state=TrialState.FAIL)
                continue
            failures += _run(sweeper, study, fixed, [interrupted])
        for failed in _failed(study):
            failures += _retry(sweeper, study, fixed, failed)
        while (missing := sweeper.trials - len(_known(study))) > 0:
            proposed = _propose(study, space, sweeper, min(sweeper.parallel, missing))
            if not proposed:
                _log.info("Every point of the space was tried.")
                break
            failures += _run(sweeper, study, fixed, proposed)
        best = _write_best(sweeper, study, fixed)
        if scores_winner and not math.isnan(best):
            failures += _score_winner(sweeper, study, fixed)
    finally:
        lock.release()
    for job in failures:
        _ = job.return_value  # raises the job's exception
    return best


def _check_comparable(space: Space, config: Any) -> None:
    """Refuse points whose validation scores cannot be compared, and warn where the options do not tell."""
    monitor = str(config.trainer.monitor)
    if texts := [key for key in _OTHER_TEXTS if key in space]:
        raise UserError(
            f"A search over {listed(texts)} was requested, but its points would be scored on different validation "
            "texts. Search with one value, or compare the test scores of a grid (-m without hydra/sweeper=search)."
        )
    if monitor not in ("validation/loss", "validation/source_effect"):
        return
    remedy = "Set trainer.monitor=validation/rouge1 trainer.monitor_mode=max."
    if labels := [key for key in _OTHER_LABELS if key in space]:
        raise UserError(
            f"A search over {listed(labels)} was requested, but {monitor} is comparable only over the same labels. "
            + remedy
        )
    unsure = [key for key in _MAYBE_OTHER_LABELS if key in space]
    if config.bridge.embeddings == Embeddings.copy or config.decoder.model_type == SELECTOR:
        unsure += [key for key in _OF_ENCODER if key in space]
    if _COPIES in getattr(space.get("bridge"), "choices", ()):
        unsure.append("bridge")
    if unsure:
        _log.warning(
            "Points are compared by %s, which is comparable only between models with the same target tokenizer, and "
            "they differ in %s. If their tokenizers differ: %s",
            *(monitor, listed(unsure), remedy),
        )


def _space(sweeper: Any, arguments: list[str]) -> tuple[Space, list[str]]:
    words = [f"{key}={value}" for key, value in sweeper.params.items()] + arguments
    parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
    overrides = {override.get_key_element(): override for override in parser.parse_overrides(words)}
    space = {key: _distribution(o) for key, o in overrides.items() if o.is_sweep_override()}
    if not space:
        raise UserError(
            "A search was requested, but no option varies. Set hydra.sweeper.params, or KEY='interval(a,b)'."
        )
    fixed = [o.input_line for o in overrides.values() if not o.is_sweep_override()]
    return space, [word for word in fixed if word is not None]


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if isinstance(value, RangeSweep):
        steps, step = [float(text) for text in override.sweep_string_iterator()], float(value.step)
        if all(number.is_integer() for number in (*steps, step)):
            return IntDistribution(int(steps[0]), int(steps[-1]), step=int(step))
        return FloatDistribution(steps[0], steps[-1], step=step)
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        assert low is not None
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    assert isinstance(value, ChoiceSweep)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _study(sweeper: Any, folder: Path, space: Space, *, has_flock: bool) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    minimised = str(sweeper.config.trainer.monitor_mode) == "min"
    try:
        study = optuna.create_study(
            study_name=os.fsencode(folder.name).decode("utf-8", "backslashreplace"),
            storage=RDBStorage(sweeper.storage) if sweeper.storage else _beside_jobs(SweepDir(folder).study, has_flock),
            direction="minimize" if minimised else "maximize",
            load_if_exists=True,
        )
    except Exception as error:  # SQLAlchemy, its drivers and Python have no common base class
        if "database or disk is full" in str(error) or "disk I/O error" in str(error):
            raise  # explain() has a better message; another name= would not help
        raise UserError(_storage_message(sweeper.storage, folder, error)) from error
    searched = {key: str(distribution) for key, distribution in sorted(space.items())}
    searched["trainer.monitor"] = str(sweeper.config.trainer.monitor)
    earlier = study.user_attrs.get("searched", searched)
    if earlier != searched:
        raise UserError(
            f"The study {study.study_name} searched {earlier}, not {searched}. Set another name= to start a new study."
        )
    study.set_user_attr("searched", searched)
    for trial in study.get_trials(deepcopy=False):  # their parameters become overrides of a job's command line
        if any(space.get(key) != distribution for key, distribution in trial.distributions.items()):
            raise UserError(
                f"The study {study.study_name}: trial {trial.number} has parameters outside of the configured space. "
                "Set another name= to start a new study."
            )
    return study


def _beside_jobs(file: Path, has_flock: bool) -> RDBStorage:
    """Return an SQLite storage for a path with any characters.

    A plain URL does not work: ``?``, ``%`` and ``{`` have meanings in it that differ between releases. On a file system
    without flock, SQLite's own locks fail too; they are turned off, because the search's lock already ensures that only
    this process opens the file.
    """
    name = f"file:{quote(os.fsencode(os.path.abspath(file)))}" + ("" if has_flock else "?vfs=unix-none")
    options = {"creator": lambda: sqlite3.connect(name, uri=True), "poolclass": sqlalchemy.NullPool}
    return RDBStorage("sqlite://", engine_kwargs=options)


def _storage_message(url: str | None, folder: Path, error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if not url:
        return f"The study {SweepDir(folder).study} cannot be read or written ({reason}). Set name= to start a new one."
    # If the URL may hold a password, show neither the URL nor the driver's message, which may repeat it.
    hidden = "@" in url or "?" in url
    scheme = re.match(r"[\w+]*(?=://)", url)
    named = f"{scheme[0] if scheme else ''}..." if hidden else url
    return (
        f"hydra.sweeper.storage={named} cannot be used ({type(error).__name__ if hidden else reason}). Set an "
        "SQLAlchemy URL whose driver is installed and whose database is reachable, or leave it out: the study is then "
        "search.db in the sweep's folder."
    )


def _known(study: optuna.Study) -> list[Point]:
    """Return the points whose trials have finished or failed, each once."""
    points: list[Point] = []
    for trial in study.get_trials(deepcopy=False):
        if trial.params and trial.state.is_finished() and trial.params not in points:
            points.append(trial.params)
    return points


def _failed(study: optuna.Study) -> list[FrozenTrial]:
    """Return one trial of each point that has failed and never succeeded."""
    trials = study.get_trials(deepcopy=False)
    seen = [trial.params for trial in trials if trial.state is TrialState.COMPLETE]
    failed = []
    for trial in trials:
        if trial.state is TrialState.FAIL and trial.params and trial.params not in seen:
            seen.append(trial.params)
            failed.append(trial)
    return failed


def _propose(study: optuna.Study, space: Space, sweeper: Any, count: int) -> list[FrozenTrial]:
    """Return trials for up to ``count`` new points; fewer if the space has no more."""
    proposed: list[FrozenTrial] = []
    known = _known(study)
    for attempt in range(_PROPOSALS):
        if len(proposed) == count or _is_exhausted(space, len(known) + len(proposed)):
            break
        entropy = [sweeper.seed, len(known), len(proposed), attempt]
        study.sampler = _sampler(sweeper.sampler, int(np.random.SeedSequence(entropy).generate_state(1)[0]), attempt)
        trial = study.ask(space)
        frozen = study.get_trials(deepcopy=False)[trial.number]
        if frozen.params in known or any(frozen.params == other.params for other in proposed):
            study.tell(trial, state=TrialState.FAIL)  # a repeated point
            continue
        proposed.append(frozen)
    return proposed


def _sampler(name: str, seed: int, attempt: int) -> optuna.samplers.BaseSampler:
    if name not in ("tpe", "random"):
        raise UserError(f"hydra.sweeper.sampler={name} was requested. Set tpe or random.")
    # If few points are left, TPE keeps proposing known good ones.
    if name == "random" or attempt > _PROPOSALS // 5:
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _is_exhausted(space: Space, known: int) -> bool:
    sizes = [_size(distribution) for distribution in space.values()]
    return known >= math.prod(sizes)


def _size(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.step is not None:
        return round((distribution.high - distribution.low) / distribution.step) + 1
    return math.inf


def _run(sweeper: Any, study: optuna.Study, fixed: list[str], trials: list[FrozenTrial]) -> list[Any]:
    """Run the jobs of these trials, record their values in the study, and return the failed jobs."""
    failures = []
    jobs = sweeper.launch([_words(fixed, trial.params) for trial in trials], trials[0].number)
    for trial, job in zip(trials, jobs, strict=True):
        if (value := _value(job)) is None:
            study.tell(trial.number, state=TrialState.FAIL)
            failures.append(job)
        else:
            study.tell(trial.number, value)
    return [job for job in failures if job.status is JobStatus.FAILED]


def _retry(sweeper: Any, study: optuna.Study, fixed: list[str], failed: FrozenTrial) -> list[Any]:
    """Run a failed point again, and return the job if it fails again.

    Optuna cannot change a finished trial, so a success is added as a new trial.
    """
    (job,) = sweeper.launch([_words(fixed, failed.params)], failed.number)
    if (value := _value(job)) is None:
        return [job] if job.status is JobStatus.FAILED else []
    trial = optuna.trial.create_trial(params=failed.params, distributions=failed.distributions, value=value)
    study.add_trial(trial)
    return []


def _words(fixed: list[str], params: Point) -> list[str]:
    return [*fixed, *(f"{key}={value}" for key, value in params.items())]


def _value(job: Any) -> float | None:
    """Return a job's score, or None if it failed or has no finite score."""
    if job.status is not JobStatus.COMPLETED or job.return_value is None or not math.isfinite(job.return_value):
        return None
    return float(job.return_value)


def _write_best(sweeper: Any, study: optuna.Study, fixed: list[str]) -> float:
    """Write the best point, its value and its run to ``search.yaml`` in the sweep's folder; return the value."""
    if not any(trial.state is TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        return math.nan
    best = study.best_trial
    run = _folder(sweeper, _words(fixed, best.params))
    record = {"value": best.value, "params": best.params, "monitor": study.user_attrs["searched"]["trainer.monitor"]}
    write_text(SweepDir(run.parent).best, OmegaConf.to_yaml(OmegaConf.create(record | {"run": run.name})))
    say(f"Best of {len(_known(study))} points: {best.value:.4f} at {' '.join(_words([], best.params))}")
    return study.best_value


def _score_winner(sweeper: Any, study: optuna.Study, fixed: list[str]) -> list[Any]:
    """Evaluate the best run on the test split, unless that was done already; return the job if it fails."""
    best = study.best_trial
    words = _words(fixed, best.params)
    run = _folder(sweeper, words)
    if not RunDir(run).checkpoints.best.exists():
        _log.warning("%s has no best.ckpt, so the best run is not scored on the test split.", run)
        return []
    evaluation = RunDir(run.parent / f"evaluate-{best.number}")  # the name that job_folder gives
    if not (evaluation.is_complete and evaluation.read_result().get("checkpoint") == SavedModel(str(run)).identity):
        quoted = str(run).replace("'", "\\'")
        # Its own settings say evaluation.test=false, which task=evaluate follows only on the command line.
        tested = [word for word in words if word != _UNTESTED]
        (job,) = sweeper.launch([[*tested, "task=evaluate", f"ckpt='{quoted}'"]], best.number)
        if job.status is JobStatus.FAILED:
            return [job]
    result = evaluation.read_result()
    primary = primary_of(result.get("signatures") or [])
    looks = result.get("test_looks")
    say(
        f"Test {TITLES[primary]} of the best run: {result['metrics'][f'test/{primary}']:.2f}, in {evaluation.path}"
        + (f". Looks at its test split: {looks}." if looks else "")
    )
    return []


def _folder(sweeper: Any, words: list[str]) -> Path:
    """Return the folder of the job with these overrides."""
    config = sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, words)
    return Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
