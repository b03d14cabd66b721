"""Score the best checkpoints at the end of a fit, not only the best one (``trainer.score_best``).

Liu & Lapata (2019) report the mean of the three checkpoints with the lowest validation loss. Each has scores and
predictions of its own in ``top/N`` of the run directory.
"""

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

SCORES = "scores.json"  # not result.json: reports would take the folder for another run


def score_best(evaluation: Evaluation, trainer: Any) -> None:
    """Score the best checkpoint of a fit as its result, after the others that ``trainer.score_best`` requests.

    Every rank has to call this.

    Args:
        evaluation: The evaluation of the best checkpoint. Its facts get ``top_checkpoints``, the step, the validation
            score and the scores of each, and ``top_checkpoints_mean``, the means of the scores.
        trainer: The trainer of the fit.
    """
    found: list[dict[str, Any]] = []
    primary = ""
    for number, (step, validation) in enumerate(top_steps(trainer).items(), 1):
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
            result = run_dir.read_result()
            run_dir.result.replace(run_dir.path / SCORES)
            primary = primary_of(result["signatures"])
            scores = {name: one for name, one in result["metrics"].items() if isinstance(one, int | float)}
            found.append({"step": step, "validation": validation, "metrics": scores})
    if found:
        names = set.intersection(*(set(one["metrics"]) for one in found))
        means = {name: sum(one["metrics"][name] for one in found) / len(found) for name in sorted(names)}
        evaluation.facts.update(top_checkpoints=found, top_checkpoints_mean=means)
    evaluate.score(evaluation)
    requested = evaluation.settings.trainer.score_best
    if 0 < len(found) < requested:
        say(f"trainer.score_best={requested} was requested; this fit kept {len(found)}.")
    if len(found) > 1:
        name = f"{evaluation.split}/{primary}"
        listed = ", ".join(f"{one['metrics'][name]:.2f}" for one in found)
        say(f"The {len(found)} best checkpoints have {primary} {listed}, on average {means[name]:.2f}.")
