"""Time training steps before a fit, to choose the number of CPU threads and how many steps fit into the time."""

import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from warmstart.config.precision import resolve_precision, training_dtype
from warmstart.config.training import OptimSettings, TrainerSettings
from warmstart.model.soft_targets import SoftTargets
from warmstart.training.optimizer import build_optimizer

ROUNDS = 3  # timed rounds for each number of threads, in turn, so that other work on the machine slows all alike
LONGEST_TIMING = 20.0  # seconds after which no further round begins, once each number of threads has a timed one
MIN_SHARE = 0.25  # of the configured steps that a fit takes at least; fewer would not train the model

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitPlan:
    """What was decided before the first step of a fit."""

    steps: int
    """Optimizer steps of the whole fit."""
    threads: int | None = None
    """CPU threads of torch; None leaves their number as it is."""


def plan_fit(
    model: Any,
    batches: Sequence[dict[str, Any]],
    trainer: TrainerSettings,
    optim: OptimSettings,
    total_steps: int,
    soft_targets: SoftTargets | None = None,
) -> FitPlan:
    """Time a step, set the faster number of threads, and shorten the fit to ``trainer.budget_minutes``.

    The model's parameters, its mode and torch's random state are unchanged afterwards.

    Args:
        model: the ``EncoderDecoderModel`` that will be trained.
        batches: a few training batches as the data loader returns them.
        trainer: ``budget_minutes``, ``measure_threads``, and the device and precision of the fit.
        optim: which parameters are optimized and how.
        total_steps: optimizer steps of the fit without a budget.
        soft_targets: further terms of the loss.

    Returns:
        The plan. At least ``MIN_SHARE`` of the steps are kept, even if they take longer than the budget.
    """
    device = _device(trainer.accelerator)
    candidates = {torch.get_num_threads()}
    if trainer.measure_threads and device.type == "cpu":
        candidates.add(1)
    seconds = step_seconds(model, batches, trainer, optim, device, sorted(candidates), soft_targets)
    threads = min(seconds, key=lambda number: seconds[number])
    torch.set_num_threads(threads)
    if len(seconds) > 1:
        times = ", ".join(f"{value:.2f} s with threads={number}" for number, value in seconds.items())
        _log.info("An optimizer step takes %s. The fit uses %d.", times, threads)
    steps = total_steps
    if trainer.budget_minutes is not None:
        steps = _steps_within(trainer.budget_minutes, seconds[threads], total_steps)
    return FitPlan(steps, threads if trainer.measure_threads and device.type == "cpu" else None)


def _steps_within(minutes: float, seconds: float, total_steps: int) -> int:
    affordable = int(minutes * 60 / seconds)
    if affordable >= total_steps:
        _log.info(
            "%d optimizer steps of about %.2f s take about %.1f minutes (trainer.budget_minutes=%g).",
            *(total_steps, seconds, total_steps * seconds / 60, minutes),
        )
        return total_steps
    steps = max(affordable, min(total_steps, max(1, round(MIN_SHARE * total_steps))))
    _log.warning(
        "An optimizer step takes about %.2f s, so all %d steps would take %.0f minutes. "
        "trainer.budget_minutes=%g allows %d, so this fit takes %d steps (about %.0f minutes), and its learning rate "
        "falls to zero over these. Expect lower scores than with all steps; set trainer.budget_minutes=null for those.",
        *(seconds, total_steps, total_steps * seconds / 60, minutes, affordable, steps, steps * seconds / 60),
    )
    return steps


def step_seconds(
    model: Any,
    batches: Sequence[dict[str, Any]],
    trainer: TrainerSettings,
    optim: OptimSettings,
    device: torch.device,
    threads: Sequence[int],
    soft_targets: SoftTargets | None = None,
) -> dict[int, float]:
    """Time optimizer steps with each number of CPU threads.

    Args:
        model: the model; it is moved to ``device``.
        batches: training batches; each round goes through all of them.
        trainer: precision and accumulated batches.
        optim: which parameters are optimized.
        device: where the fit will train.
        threads: numbers of threads to try.
        soft_targets: further terms of the loss; their teacher is moved to ``device``.

    Returns:
        Seconds of one optimizer step by number of threads: the median of at most ``ROUNDS`` rounds, after one that is
        not counted. The number of threads is the last one tried afterwards.
    """
    model.to(device)
    if soft_targets is not None:
        soft_targets.to(device, model.dtype)
    was_training = model.training
    model.train()
    optimizer = build_optimizer(model, optim)
    for group in optimizer.param_groups:  # a step changes no parameter
        group["lr"], group["weight_decay"] = 0.0, 0.0
    precision = resolve_precision(trainer.precision, trainer.accelerator)
    mixed = torch.autocast(device.type, training_dtype(precision), enabled=precision.endswith("-mixed"))
    placed = [{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()} for batch in batches]

    def round_seconds() -> float:
        began = time.perf_counter()
        for batch in placed:
            ids = batch["input_ids"], batch["attention_mask"], batch["labels"]
            with mixed:
                loss, _, tokens = model.training_loss(*ids, buckets=batch.get("buckets"), soft_targets=soft_targets)
            (loss / tokens).backward()
        _wait_for(device)
        forward_and_backward = (time.perf_counter() - began) / len(placed)
        # A learning rate of 0 does not help: 0 times infinity is NaN. The fit skips such a step.
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        _wait_for(device)
        began = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait_for(device)
        return trainer.accumulate * forward_and_backward + time.perf_counter() - began

    times: dict[int, list[float]] = {number: [] for number in threads}
    started = time.perf_counter()
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for i in range(ROUNDS + 1):
            if i > 1 and time.perf_counter() - started > LONGEST_TIMING:
                break
            for number in threads:
                torch.set_num_threads(number)
                times[number].append(round_seconds())
    model.train(was_training)
    return {number: statistics.median(values[1:]) for number, values in times.items()}


def _device(accelerator: str) -> torch.device:
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return torch.device("cuda")
    return torch.device("mps" if accelerator == "mps" else "cpu")


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
