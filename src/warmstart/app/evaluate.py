"""Score a trained model on the test split: summaries, ROUGE beside baselines and control, result.json, the table.

python run.py task=evaluate ckpt=runs/demo
python run.py task=evaluate ckpt=runs/demo trainer=ddp trainer.devices=8

Several ranks share out the batches of the split, which are the same for any number of them, and rank 0 judges.
Interrupted, the same command goes on where it was: the summaries made so far are kept in the cache.
"""

import logging
import math
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from warmstart.app.check import validate_numbers
from warmstart.app.loading import check_search, load_trained, scored_checkpoint
from warmstart.app.recorded import recorded_parameters
from warmstart.app.schema import Config
from warmstart.cache import cache_root
from warmstart.errors import UserError

_log = logging.getLogger(__name__)
ASKS_FOR_RANKS = {"trainer", "trainer.devices", "trainer.nodes", "trainer.strategy"}


def run(settings: Config, run_dir: Path) -> float:
    """Evaluate ``ckpt`` on ``data``'s test split into the run directory."""
    import transformers

    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.training.rank_watch import watched_ranks

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if settings.ckpt is None:
        raise UserError("task=evaluate needs ckpt=: a run directory, a .ckpt file or an exported folder.")
    validate_numbers(settings)
    _refuse_job_of_sweep(run_dir)
    began = time.perf_counter()
    with watched_ranks():
        _start_ranks(settings)
        loaded = load_trained(settings.ckpt)
        check_search(settings, loaded[0])
        data = SummarizationDataModule(settings.data, loaded[1], seed=settings.seed)
        data.prepare_data()
        data.setup("test")
        return test(settings, run_dir, settings.ckpt, data, {"rows": data.row_counts()}, began, [], loaded=loaded)


def _refuse_job_of_sweep(run_dir: Path) -> None:
    """A sweep goes by the results of its fits, each in a folder that its config's hash names."""
    from warmstart.evaluation.result import read_result

    if (run_dir / "result.json").exists() and read_result(run_dir).get("config_hash") == run_dir.name:
        raise UserError(
            f"{run_dir} is a job of a sweep, which goes by the result that its fit has left there. Give the evaluation "
            "another name=."
        )


def _start_ranks(settings: Config) -> None:
    """Ranks where torchrun or srun has started some, or this command line asks for them.

    Not where the run's own settings do: a model that eight devices trained is judged on one as well.
    """
    trainer, environment = settings.trainer, os.environ
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    named = {word.lstrip("+").partition("=")[0] for word in words}
    alone = trainer.devices * trainer.nodes == 1
    if alone and trainer.accelerator in ("gpu", "cuda") and named & {"trainer", "trainer.accelerator"}:
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                f"trainer.accelerator={trainer.accelerator} was asked for, but torch finds no GPU here. Set "
                "trainer=cpu, or leave it out: an evaluation takes what the machine has."
            )
    if any(word.split(".")[0] == "logger" for word in named):
        _log.warning("logger= is for a fit: an evaluation leaves its result in the run's folder alone.")
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
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        try:
            fabric = Fabric(accelerator=trainer.accelerator, strategy="ddp", devices=devices, num_nodes=nodes)
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            raise UserError(
                f"trainer.accelerator={trainer.accelerator}, devices={devices} cannot be had on this machine: "
                f"{str(error).splitlines()[0]} Set what the machine has, or leave them out: one process evaluates, too."
            ) from error
        fabric.launch()


def test(
    settings: Config,
    run_dir: Path,
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

    from warmstart.app.export import export_model
    from warmstart.app.identity import identity
    from warmstart.evaluation.generation import generation_kwargs, summarize_batches
    from warmstart.evaluation.kept_summaries import KeptSummaries, summaries_key
    from warmstart.evaluation.likelihood import in_order, likelihoods
    from warmstart.evaluation.result import set_result_aside, write_predictions, write_result
    from warmstart.evaluation.scores import judge
    from warmstart.evaluation.table import score_table, verdict
    from warmstart.model.cpu_kernels import build_cpu_kernels
    from warmstart.model.dtypes import computing_in
    from warmstart.model.halves import parameter_counts
    from warmstart.ranks import failing_together, of_all_ranks, rank_and_world_size
    from warmstart.training.allocator import keep_freed_memory
    from warmstart.training.loggers import log_result

    if settings.trainer.keep_freed_memory:
        keep_freed_memory()
    rank, ranks = rank_and_world_size()
    with failing_together():
        model, tokenizers, _ = loaded or load_trained(checkpoint)
        texts = [data.tokenized("test").folder.name, data.settings.evaluation_max_tokens]
        search = [asdict(settings.generation), settings.seed if settings.generation.do_sample else None]
        key = summaries_key(model, tokenizers, texts, search)
        if torch.cuda.is_available() and settings.trainer.accelerator != "cpu":
            model.cuda()
        else:
            build_cpu_kernels()
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
        torch.manual_seed(settings.seed)  # a search that samples; not what the batches before have left
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
        **identity(settings),
        "status": "complete",
        "checkpoint": scored_checkpoint(checkpoint),
        "metrics": judgement.metrics,
        "baselines": judgement.baselines,
        "controls": judgement.controls,
        "parameters": recorded_parameters(checkpoint) or {"total": parameter_counts(model)["total"]},
        "generation": asdict(settings.generation),
        "summaries": {"generated": generated, "from_an_interrupted_run": earlier},
        "peak_memory_bytes": max(peak for _, _, peak in shares),
        "seconds": seconds,
        **facts,
    }
    export_model(model, tokenizers, run_dir / "export", result, settings)
    set_result_aside(run_dir)  # from here on an earlier one would stand beside predictions that are not its own
    write_predictions(
        run_dir,
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
    write_result(run_dir, result)
    kept.close(complete=True)
    out = Console()
    out.print(score_table(judgement, f"{settings.encoder.name} x {settings.decoder.name}"))
    out.print(verdict(judgement), highlight=False, markup=False)
    out.print(f"Run: {run_dir}", highlight=False, markup=False, soft_wrap=True)
    return float(judgement.metrics["test/rouge1"])


def _peak_memory(device: str) -> int:
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
