"""Write what an evaluation leaves: predictions, the export of a fit, and ``result.json``."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.printing import program, say
from warmstart.runs.looks import count_look, run_of_test_split
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel, Trained


@dataclass(frozen=True)
class Evaluation:
    """The inputs of one evaluation."""

    settings: Config
    run_dir: RunDir
    saved: SavedModel
    """The checkpoint or export to evaluate."""
    data: Any
    """A ``SummarizationDataModule``."""
    began: float
    """Start time, in seconds of ``time.perf_counter``."""
    facts: dict[str, Any]
    """Further fields of ``result.json``, such as a fit's throughput."""
    loggers: list[Any] = field(default_factory=list)
    trained: Trained | None = None
    """The model of ``saved``, if it is already loaded."""
    training: Sequence[Any] | None = None
    """The training examples, for the baselines that use them; None takes those of ``data``."""
    is_of_fit: bool = False
    """Whether this is the end of a fit, which is exported."""
    split: str = "test"
    """The split to score: ``test`` or ``validation``."""
    prints: bool = True
    """Whether scores, examples and next commands are printed."""


def write_outcome(
    evaluation: Evaluation,
    trained: Trained,
    scored: dict[str, Any],
    seconds: dict[str, float],
    predictions: Iterable[dict[str, Any]] | None,
) -> int | None:
    """Write predictions and result, in this order, so that a result never describes older predictions.

    A fit is also exported. If the test split was scored, a look at it is counted.

    Args:
        evaluation: the evaluation.
        trained: its model.
        scored: fields of the result.
        seconds: how long the scoring took, by split.
        predictions: the rows of ``predictions.jsonl``; None if nothing was scored.

    Returns:
        The number of looks at the test split of the model's run, if this is one; None if not, or if it is not known.
    """
    from warmstart.tasks.export import export_model
    from warmstart.training.loggers.wandb import log_result

    run_dir, facts = evaluation.run_dir, evaluation.facts
    total = time.perf_counter() - evaluation.began
    result = {
        **_about(evaluation, trained.model),
        **_with_run(evaluation, scored),
        **facts,
        "seconds": {**facts.get("seconds", {}), **seconds, "total": total},
    }
    if evaluation.is_of_fit:
        export_model(trained.model, trained.tokenizers, run_dir.export, result, evaluation.settings)
    run_dir.set_result_aside()  # it describes the predictions that are now replaced
    if predictions is None:
        run_dir.predictions.unlink(missing_ok=True)  # they belong to an earlier run in this folder
    else:
        run_dir.write_predictions(predictions)
    log_result(evaluation.loggers, result)
    run_dir.write_result(result)
    return result.get("test_looks") or None


def leave_unscored(evaluation: Evaluation) -> None:
    """Write export and result of a fit that scores neither the test nor the validation split.

    Every rank has to call this; only rank 0 writes.
    """
    import torch

    from warmstart.collectives import of_all_ranks, rank_and_world_size
    from warmstart.training.throughput import peak_memory_bytes

    on_cuda = torch.cuda.is_available() and evaluation.settings.trainer.accelerator != "cpu"
    peaks = of_all_ranks(peak_memory_bytes(torch.device("cuda" if on_cuda else "cpu")))
    if rank_and_world_size()[0] > 0:
        return
    unscored: dict[str, Any] = {"metrics": {}, "baselines": {}, "controls": {}}
    write_outcome(evaluation, evaluation.saved.load(), unscored | {"peak_memory_bytes": max(peaks)}, {}, None)
    if note := evaluation.facts.get("ended_early"):
        say(note)
    say_untested(evaluation)
    say(f"Run: {evaluation.run_dir.path}")


def say_untested(evaluation: Evaluation) -> None:
    """Print the best validation score of a fit that did not read the test split, and how to score that split."""
    settings = evaluation.settings
    best = "{monitor} {best:.4f}".format(**evaluation.facts["validation"])
    say(f"{settings.encoder.name} x {settings.decoder.name}: best {best}.")
    say("The test split was not read (evaluation.test=false).")
    say(f"To score it: {program()} task=evaluate ckpt={evaluation.run_dir.path}")


def _with_run(evaluation: Evaluation, scored: dict[str, Any]) -> dict[str, Any]:
    """Add to the scores what the result takes from the model's run, and count a look if they are of the test split.

    The result takes the number of looks, and the validation scores of the same checkpoint.
    """
    saved, folder = evaluation.saved, evaluation.run_dir.path
    tested = any(name.startswith("test/") for name in scored["metrics"])
    if evaluation.is_of_fit:
        return scored | {"test_looks": count_look(evaluation.run_dir, saved.identity, folder) if tested else 0}
    run = run_of_test_split(saved, evaluation.settings)
    if run is None or not tested:
        return scored
    try:
        earlier = run.read_result()
    except UserError:  # no result, or a damaged one
        earlier = {}
    if earlier.get("checkpoint") == saved.identity:
        kept = {name: value for name, value in earlier.get("metrics", {}).items() if name.startswith("validation/")}
        scored = scored | {"metrics": scored["metrics"] | kept}
        scored |= {"validation": earlier["validation"]} if "validation" in earlier else {}
    return scored | {"test_looks": count_look(run, saved.identity, folder)}


def _about(evaluation: Evaluation, model: Any) -> dict[str, Any]:
    """Return the fields of ``result.json`` that every complete run has."""
    from warmstart.config.paper import paper_of
    from warmstart.model.parameters import parameter_counts
    from warmstart.runs.identity import identity

    settings = evaluation.settings
    paper = paper_of(settings.evaluation.paper, settings.data.name)
    return {
        **identity(settings, evaluation.run_dir),
        **({} if paper is None else {"paper": paper}),
        "status": "complete",
        "checkpoint": evaluation.saved.identity,
        "parameters": evaluation.saved.parameters or {"total": parameter_counts(model)["total"]},
        "generation": asdict(settings.generation),
    }
