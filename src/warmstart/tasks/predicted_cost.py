"""Print what a fit will cost: parameters, memory, steps and time, as ``task=check`` shows them."""

from warmstart.config.model import SELECTOR
from warmstart.config.schema import Config
from warmstart.profiling.cost import Cost
from warmstart.profiling.devices import CHIPS, all_reduce_bytes, all_reduce_seconds, devices_of, flops_per_second_on
from warmstart.training.distillation import not_predicted


def lines_of(settings: Config, cost: Cost) -> list[str]:
    """Format a ``Cost`` for the terminal, as a list of lines."""
    counts = {name: f"{count / 1e6:.1f}M" for name, count in cost.parameters.items()}
    trainer, needed = settings.trainer, sum(cost.memory.values())
    ranks = trainer.devices * trainer.nodes
    generation = settings.generation
    search = f" with {generation.num_beams} beams, {generation.max_new_tokens} new tokens"
    if settings.decoder.model_type == SELECTOR:
        search = ""
    lines = [
        f"  parameters  {counts['total']}: {counts['pretrained']} pretrained, {counts['new']} new, "
        f"{counts['shared']} shared by encoder and decoder; {counts['trainable']} trainable",
        f"  memory      {_gib(cost.memory)} = {needed / 2**30:.1f} GiB on each device ({cost.precision})",
        f"  generation  {_gib(cost.generation_memory)} = {sum(cost.generation_memory.values()) / 2**30:.1f} GiB for "
        f"{cost.generated_examples} sources{search}",
        f"  step        {cost.examples_per_step} examples of about {cost.source_tokens:.0f} + "
        f"{cost.target_tokens:.0f} tokens: {cost.flops_per_step:.2g} FLOPs on {ranks} device(s)",
        f"  fit         about {cost.steps:,} steps over {cost.examples:,} examples: {cost.flops:.2g} FLOPs",
    ]
    for device in devices_of(settings):
        if ranks > 1:
            exchanged, name, passes = cost.memory["gradients"], "ddp", "the backward pass"
            if trainer.strategy == "fsdp":
                # An all-gather of the weights and a reduce-scatter of the gradients each send half of what an
                # all-reduce sends. Each batch of a step gathers twice, including frozen weights, and scatters once.
                # "At most", because weights outside of layers stay gathered between the two passes.
                weights, gradients = cost.memory["weights"] * ranks, cost.memory["gradients"] * ranks
                exchanged, name = trainer.accumulate * (weights + gradients / 2), "fsdp, at most"
                passes = "both passes"
            sent = f"{all_reduce_bytes(exchanged, ranks) / 1e6:.0f} MB sent by each of {ranks} ranks a step ({name})"
            link = all_reduce_seconds(device, exchanged, trainer.devices, trainer.nodes)
            way = "" if link is None else f": {1000 * link[1]:.1f} ms over {link[0]}, during {passes}"
            lines.append(f"  gradients   {sent}{way}")
        if (rate := flops_per_second_on(device, settings)) is not None:
            hours = cost.flops / ranks / rate[1] / 3600
            lines.append(f"  time        roughly {_duration(hours)} on {ranks} x {rate[0]}")
        if device in CHIPS and needed > CHIPS[device].memory:
            lines.append(
                f"              more than its {CHIPS[device].memory / 2**30:.0f} GiB: lower data.batch.max_tokens"
            )
    if trainer.max_minutes is not None:
        lines.append(f"              at most trainer.max_minutes={trainer.max_minutes:g}")
    others = ", ".join([*not_predicted(settings), "the process itself, validation, test summaries, reading the data"])
    return [*lines, f"  Not included: {others}. No GPU was used."]


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.1f} minutes" if 60 * hours >= 1 else f"{3600 * hours:.2g} seconds"


def _gib(memory: dict[str, float]) -> str:
    return " + ".join(f"{name} {value / 2**30:.2f}" for name, value in memory.items() if value)
