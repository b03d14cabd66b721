"""Score a trained model on the test split: summaries, ROUGE beside baselines and control, result.json, the table.

python run.py task=evaluate ckpt=runs/demo
python run.py task=evaluate ckpt=runs/demo trainer=ddp trainer.devices=8
python run.py task=evaluate ckpt=runs/demo logger=wandb     # into the W&B run of that fit

Several ranks share out the batches of the split, which are the same for any number of them, and rank 0 judges.
Interrupted, the same command goes on where it was: the summaries made so far are kept in the cache.
"""

import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from warmstart.cache import cache_root
from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.printing import say, visible
from warmstart.runs.load import (
    check_search,
    is_export,
    load_trained,
    open_checkpoint,
    refuse_nonfinite,
    scored_checkpoint,
)
from warmstart.runs.recorded import recorded_parameters
from warmstart.runs.run_dir import CheckpointDir, RunDir
from warmstart.tasks.check import validate_numbers

_log = logging.getLogger(__name__)
ASKS_FOR_RANKS = {"trainer", "trainer.devices", "trainer.nodes", "trainer.strategy"}


def run(settings: Config, folder: Path) -> float:
    """Evaluate ``ckpt`` on ``data``'s test split into the run directory."""
    import transformers

    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.training.distributed.rank_watch import rank_timeout, watched_ranks

    run_dir = RunDir(folder)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if settings.ckpt is None:
        raise UserError("task=evaluate needs ckpt=: a run directory, a .ckpt file or an exported folder.")
    validate_numbers(settings)
    _refuse_job_of_sweep(run_dir)
    began = time.perf_counter()
    with watched_ranks(rank_timeout(settings.trainer)):
        _start_ranks(settings)
        loaded = load_trained(settings.ckpt)
        check_search(settings, loaded[0])
        data = SummarizationDataModule(settings.data, loaded[1], seed=settings.seed)
        check_scripts(data.source, ["test"], "task=summarize writes the summaries; judge them by other means.")
        data.prepare_data()
        data.setup("test")
        score = test(settings, run_dir, settings.ckpt, data, {"rows": data.row_counts()}, began, [], loaded=loaded)
        if settings.logger.wandb and any(word.split(".")[0] == "logger" for word in _named()):
            _log_to_wandb(settings, run_dir, settings.ckpt)
        return score


def _named() -> set[str]:
    """The keys that this command line names; all others may be the run's own."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {word.lstrip("+").partition("=")[0] for word in words}


def _log_to_wandb(settings: Config, run_dir: RunDir, ckpt: str) -> None:
    """Log the evaluation to its fit's W&B run, where it scores what that is judged by: the same settings, best.ckpt.

    Scores of other data or of another search would stand there as the fit's own: they get a run of their own.
    """
    from warmstart.collectives import rank_and_world_size
    from warmstart.runs.identity import config_hash, config_hash_1
    from warmstart.training.loggers.wandb import log_evaluation

    if rank_and_world_size()[0] > 0:
        return
    logger, fit = settings.logger, None
    hashes = (config_hash(settings), config_hash_1(settings) or "")
    if not is_export(Path(ckpt)):
        checkpoint, file = open_checkpoint(ckpt)
        folder = CheckpointDir(file.parent)
        if file == folder.best and checkpoint["hyper_parameters"].get("config_hash") in hashes:
            fit = folder.run.path
            of_fit = checkpoint["hyper_parameters"]["config"]["logger"]
            logger = replace(logger, project=of_fit["project"], entity=of_fit["entity"])
    log_evaluation(logger, run_dir.path, fit, run_dir.read_result())


def check_scripts(source: Any, splits: Sequence[str], way_on: str) -> None:
    """Refuse, before anything is trained or summarised, texts whose summaries ROUGE cannot score.

    Raises:
        UserError: ROUGE cannot read the references of one of ``splits``; the message ends with ``way_on``.
    """
    from warmstart.evaluation.rouge import check_references

    for split in splits:
        check_references([example.summary for example in source.split(split)], split, way_on)


def _refuse_job_of_sweep(run_dir: RunDir) -> None:
    """A sweep goes by the results of its fits, each in a folder that its config's hash names."""
    if run_dir.is_job_of_sweep:
        raise UserError(
            f"{run_dir.path} is a job of a sweep, which goes by the result that its fit has left there. Give the "
            "evaluation another name=."
        )


def _start_ranks(settings: Config) -> None:
    """Ranks where torchrun or srun has started some, or this command line asks for them.

    Not where the run's own settings do: a model that eight devices trained is judged on one as well.
    """
    trainer, environment, named = settings.trainer, os.environ, _named()
    alone = trainer.devices * trainer.nodes == 1
    if alone and trainer.accelerator in ("gpu", "cuda") and named & {"trainer", "trainer.accelerator"}:
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                f"trainer.accelerator={trainer.accelerator} was asked for, but torch finds no GPU here. Set "
                "trainer=cpu, or leave it out: an evaluation takes what the machine has."
            )
    if "TORCHELASTIC_RUN_ID" in environment:
        devices = int(environment["LOCAL_WORLD_SIZE"])
        nodes = int(environment["WORLD_SIZE"]) // devices
    elif int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:  # srun's
        nodes = int(environment["SLURM_STEP_NUM_NODES"])
        devices = int(environment["SLURM_STEP_NUM_TASKS"]) // nodes
    else:
        if not named & ASKS_FOR_RANKS:
            return
        devices, nodes = trainer.devices, trainer.nodes
    if devices * nodes > 1:
        from lightning.fabric import Fabric
        from lightning.fabric.strategies import DDPStrategy
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        from warmstart.training.distributed.rank_watch import group_timeout

        try:
            strategy = DDPStrategy(timeout=group_timeout(trainer))
            fabric = Fabric(accelerator=trainer.accelerator, strategy=strategy, devices=devices, num_nodes=nodes)
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            raise UserError(
                f"trainer.accelerator={trainer.accelerator}, devices={devices} cannot be had on this machine: "
                f"{str(error).splitlines()[0]} Set what the machine has, or leave them out: one process evaluates, too."
            ) from error
        fabric.launch()


def test(
    settings: Config,
    run_dir: RunDir,
    checkpoint: str,
    data: Any,
    facts: dict[str, Any],
    began: float,
    loggers: list[Any],
    loaded: tuple[Any, Any, Path] | None,
) -> float:
    """Summarise the test split with ``checkpoint``, judge, and leave predictions, export and result; test ROUGE-1.

    ``loaded`` is what ``load_trained`` made of it, where that was asked already.
    Every rank has to call this and does its share; all but rank 0 then return NaN.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from warmstart import cpu
    from warmstart.collectives import failing_together, of_all_ranks, rank_and_world_size
    from warmstart.evaluation.judgement import judge
    from warmstart.evaluation.likelihood import in_order, likelihoods
    from warmstart.evaluation.resumable import KeptSummaries, summaries_key
    from warmstart.evaluation.score_table import score_table, verdict
    from warmstart.evaluation.summarize import generation_kwargs, summarize_batches
    from warmstart.model.dtypes import computing_in
    from warmstart.seeding import seed_of
    from warmstart.tasks.export import export_model
    from warmstart.training.loggers.wandb import log_result

    if settings.trainer.keep_freed_memory:
        cpu.keep_freed_memory()
    rank, ranks = rank_and_world_size()
    with failing_together():
        model, tokenizers, _ = loaded or load_trained(checkpoint)
        refuse_nonfinite(f"ckpt={checkpoint}", model)
        texts = [data.tokenized("test").folder.name, data.settings.evaluation_max_tokens]
        search = [asdict(settings.generation), settings.seed if settings.generation.do_sample else None]
        key = summaries_key(model, tokenizers, texts, search)
        if torch.cuda.is_available() and settings.trainer.accelerator != "cpu":
            model.cuda()
        else:
            cpu.build()
        dtype = getattr(torch, settings.generation.dtype)
        kept = KeptSummaries(cache_root(data.settings.cache_dir) / "summaries" / f"{key}.jsonl", rank)
        examples = data.examples("test")
    tested = time.perf_counter()
    done: dict[int, str] = {}
    for of_rank in of_all_ranks(kept.done):
        done |= of_rank
    if earlier := len(done):
        _log.info("Going on with %d summaries of an interrupted evaluation.", earlier)
    console = Console(stderr=True)
    shown = settings.trainer.progress_bar and rank == 0
    with failing_together(), Progress(console=console, transient=True, disable=not shown) as progress:
        bar = progress.add_task("summarizing the test split", total=math.ceil((len(examples) - earlier) / ranks))
        with computing_in(model, dtype):
            summaries = summarize_batches(
                model,
                data.eval_dataloader("test", done=done, rank=rank, world_size=ranks),
                tokenizers,
                settings.generation,
                progress=lambda n: progress.advance(bar, n),
                kept=kept,
                seed=settings.seed,
            )
        judged: dict[str, Any] = {}
        if settings.evaluation.control_samples != 0:
            judged = likelihoods(model, data, "test", seed=settings.seed, rank=rank, world_size=ranks)
    shares = of_all_ranks((summaries, judged, _peak_memory(model.device.type)))
    if rank > 0:
        kept.close(complete=False)  # rank 0 clears all away, once its result is written
        return math.nan
    generated = 0
    for of_rank, _, _ in shares:
        generated += len(of_rank)
        done |= of_rank
    predictions = [done[i] for i in range(len(examples))]
    documents = [example.document for example in examples]
    references = [example.summary for example in examples]
    likely, alone = None, None
    if settings.evaluation.control_samples != 0:
        likely = in_order(of_rank for _, of_rank, _ in shares)
        torch.manual_seed(seed_of(settings.seed, len(examples)))  # where the search samples: as one more example
        with computing_in(model, dtype), torch.inference_mode():
            (alone,) = tokenizers.decode(model.generate_alone(**generation_kwargs(settings.generation))[:, 1:])
    judgement = judge(
        predictions,
        references,
        documents,
        settings.evaluation,
        settings.seed,
        likelihoods=likely,
        alone=alone,
    )
    seconds = {**facts.pop("seconds", {}), "test": time.perf_counter() - tested, "total": time.perf_counter() - began}
    result = {
        **_about(settings, run_dir, checkpoint, model),
        "metrics": judgement.metrics,
        "baselines": judgement.baselines,
        "controls": judgement.controls,
        "summaries": {"generated": generated, "from_an_interrupted_run": earlier},
        "peak_memory_bytes": max(peak for _, _, peak in shares),
        "seconds": seconds,
        **facts,
    }
    export_model(model, tokenizers, run_dir.export, result, settings)
    run_dir.set_result_aside()  # from here on an earlier one would stand beside predictions that are not its own
    run_dir.write_predictions(
        (
            {
                "id": example.id,
                "document": example.document,
                "reference": example.summary,
                "prediction": prediction,
                **{kind: round(float(values[i]), 4) for kind, values in judgement.per_example.items()},
            }
            for i, (example, prediction) in enumerate(zip(examples, predictions, strict=True))
        ),
    )
    log_result(loggers, result)
    run_dir.write_result(result)
    kept.close(complete=True)
    out = Console()
    out.print(score_table(judgement, visible(f"{settings.encoder.name} x {settings.decoder.name}")))
    out.print(verdict(judgement), highlight=False, markup=False)
    out.print(visible(f"Run: {run_dir.path}"), highlight=False, markup=False, soft_wrap=True)
    return float(judgement.metrics["test/rouge1"])


def leave_untested(
    settings: Config, run_dir: RunDir, checkpoint: str, facts: dict[str, Any], began: float, loggers: list[Any]
) -> None:
    """Leave export and result of a fit whose test split is neither read nor scored.

    Every rank has to call this; rank 0 writes.
    """
    import torch

    from warmstart.collectives import of_all_ranks, rank_and_world_size
    from warmstart.tasks.export import export_model
    from warmstart.training.loggers.wandb import log_result

    on_cuda = torch.cuda.is_available() and settings.trainer.accelerator != "cpu"
    peaks = of_all_ranks(_peak_memory("cuda" if on_cuda else "cpu"))
    if rank_and_world_size()[0] > 0:
        return
    model, tokenizers, _ = load_trained(checkpoint)
    result = {
        **_about(settings, run_dir, checkpoint, model),
        "metrics": {},
        "baselines": {},
        "controls": {},
        "peak_memory_bytes": max(peaks),
        **facts,
        "seconds": {**facts.get("seconds", {}), "total": time.perf_counter() - began},
    }
    export_model(model, tokenizers, run_dir.export, result, settings)
    run_dir.set_result_aside()
    run_dir.predictions.unlink(missing_ok=True)  # of an earlier run in this folder
    log_result(loggers, result)
    run_dir.write_result(result)
    best = "{monitor} {best:.4f}".format(**facts["validation"])
    say(f"{settings.encoder.name} x {settings.decoder.name}: best {best}. The test split was not scored")
    say(f"(evaluation.test=false): task=evaluate ckpt={run_dir.path} scores it.")
    say(f"Run: {run_dir.path}")


def _about(settings: Config, run_dir: RunDir, checkpoint: str, model: Any) -> dict[str, Any]:
    """What ``result.json`` says of a complete run, scored or not."""
    from warmstart.model.parameters import parameter_counts
    from warmstart.runs.identity import identity

    return {
        **identity(settings, run_dir),
        "status": "complete",
        "checkpoint": scored_checkpoint(checkpoint),
        "parameters": recorded_parameters(checkpoint) or {"total": parameter_counts(model)["total"]},
        "generation": asdict(settings.generation),
    }


def _peak_memory(device: str) -> int:
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
