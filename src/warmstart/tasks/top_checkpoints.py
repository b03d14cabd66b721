"""Score the best checkpoints at the end of a fit, not only the best one (``trainer.score_best``).

Liu & Lapata (2019) report the mean of the three checkpoints with the lowest validation loss. Each has scores and
predictions of its own in ``top/N`` of the run directory.
"""

import shutil
import time
from dataclasses import replace
from typing import Any

from warmstart.collectives import rank_and_world_size
from warmstart.config.metrics import primary_of
from warmstart.printing import say
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks import evaluate
from warmstart.tasks.outcome import Evaluation
from warmstart.training.callbacks.checkpoints import top_steps
from warmstart.training.checkpoint_average import AVERAGED

SCORES = "scores.json"  # not result.json: reports would take the folder for another run


def score_best(evaluation: Evaluation, trainer: Any) -> None:
    """Score the best checkpoint of a fit as its result, and the others that ``trainer.score_best`` requests.

    Each is scored once. The result also gets ``top_checkpoints``, the step, the validation score and the scores of
    each, and ``top_checkpoints_mean``, the means of the scores. Every rank has to call this.

    Args:
        evaluation: The evaluation of the best checkpoint, with its validation score in ``facts``.
        trainer: The trainer of the fit.
    """
    requested = evaluation.settings.trainer.score_best
    top = [*top_steps(trainer).items()][:requested] if requested > 1 else []
    best = None if AVERAGED in evaluation.saved.checkpoint else evaluation.saved.checkpoint["global_step"]
    as_best = best, evaluation.facts["validation"]["best"]
    results: list[dict[str, Any]] = []
    for number, (step, validation) in enumerate(top, 1):
        if (step, validation) == as_best:
            results.append({})
            continue
        run_dir = RunDir(evaluation.run_dir.top / str(number))
        run_dir.path.mkdir(parents=True, exist_ok=True)
        saved = SavedModel(str(evaluation.run_dir.checkpoints.top(step)))
        changed: dict[str, Any] = {
            "began": time.perf_counter(),
            "facts": {"steps": step},
            "is_of_fit": False,
            "prints": False,
        }
        evaluate.score(replace(evaluation, run_dir=run_dir, saved=saved, loggers=[], **changed))
        if rank_and_world_size()[0] == 0:
            results.append(run_dir.read_result())
            run_dir.result.replace(run_dir.path / SCORES)
    evaluate.score(evaluation)
    if top and rank_and_world_size()[0] == 0:
        _add_to_result(evaluation, top, results)


def _add_to_result(evaluation: Evaluation, top: list[tuple[int, float]], results: list[dict[str, Any]]) -> None:
    """Add the scores of the best checkpoints to the result; an empty one of ``results`` is that of the fit."""
    run_dir, split = evaluation.run_dir, evaluation.split
    result = run_dir.read_result()
    found: list[dict[str, Any]] = []
    for number, ((step, validation), scored) in enumerate(zip(top, results, strict=True), 1):
        if not scored:
            copy = RunDir(run_dir.top / str(number))
            copy.path.mkdir(parents=True, exist_ok=True)
            copy.write_result(result)
            copy.result.replace(copy.path / SCORES)
            shutil.copyfile(run_dir.predictions, copy.predictions)
        scores = {name: one for name, one in (scored or result)["metrics"].items() if isinstance(one, int | float)}
        found.append({"step": step, "validation": validation, "metrics": scores})
    names = set.intersection(*(set(one["metrics"]) for one in found))
    means = {name: sum(one["metrics"][name] for one in found) / len(found) for name in sorted(names)}
    run_dir.write_result(result | {"top_checkpoints": found, "top_checkpoints_mean": means})
    requested, name = evaluation.settings.trainer.score_best, primary_of(result["signatures"])
    if len(found) < requested:
        say(f"trainer.score_best={requested} was requested; this fit kept {len(found)}.")
    if len(found) > 1:
        listed = ", ".join(f"{one['metrics'][f'{split}/{name}']:.2f}" for one in found)
        say(f"The {len(found)} best checkpoints have {name} {listed}, on average {means[f'{split}/{name}']:.2f}.")
