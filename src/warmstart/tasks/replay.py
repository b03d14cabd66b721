"""Run the batches that a fit skipped again, and find the first module whose output is not finite.

python run.py task=replay ckpt=runs/mine
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.config.schema import Config
from warmstart.config.training import Distill
from warmstart.errors import UserError
from warmstart.printing import say
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.training.distillation import soft_targets_of, teacher_of
from warmstart.training.teacher_summaries import with_teachers_summaries

if TYPE_CHECKING:
    from warmstart.model.soft_targets import SoftTargets


def run(settings: Config, run_dir: Path, saved: SavedModel | None = None) -> None:
    """Replay every skipped step of the run, in its precision and in fp32, without dropout.

    A distilled fit is replayed with its teacher, if that is still there. The weights are those of ``nonfinite.ckpt`` if
    the fit diverged, else those of ``ckpt``.

    Args:
        settings: the config of the task.
        run_dir: not used.
        saved: the model that ``ckpt`` names, if the caller has opened it.

    Raises:
        UserError: the run has skipped no step.
    """
    import torch

    from warmstart.config.precision import resolve_precision
    from warmstart.data.collate import Collator
    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.data.sources.load import load_source

    replayed = RunDir(Path(settings.ckpt or ""))
    if not replayed.skipped_steps.is_file():
        missing = replayed.skipped_steps
        raise UserError(
            f"task=replay needs ckpt=RUN, a run that skipped batches, but there is no {missing}. Name the folder of "
            "another run."
        )
    kept = replayed.checkpoints.nonfinite
    of_run = SavedModel(str(kept)) if kept.exists() else saved or SavedModel(str(replayed.path))
    model, tokenizers, _ = of_run.load()
    settings = _without_lost_teacher(settings, of_run)
    soft_targets = soft_targets_of(settings, model)
    if soft_targets is not None:
        soft_targets.to(model.device, model.dtype)
    if settings.optim.rdrop:
        say(f"optim.rdrop={settings.optim.rdrop:g}: without dropout, both passes are equal.")
    source = with_teachers_summaries(settings, load_source(settings.data))
    data = SummarizationDataModule(settings.data, tokenizers, seed=settings.seed, source=source)
    examples, collate = data.tokenized("train"), Collator(tokenizers.source_pad_id, layout=data.layout)
    trained_in = resolve_precision(settings.trainer.precision, settings.trainer.accelerator)
    for step in replayed.read_skipped_steps(len(examples)):
        batch = collate([examples[i] for i in step["examples"]])
        say(f"step {step['step']}, {len(step['examples'])} examples: {step['examples']}")
        for name, low in ((trained_in, "bf16" in trained_in or "16-" in trained_in), ("fp32", False)):
            dtype = torch.bfloat16 if "bf16" in trained_in else torch.float16
            with torch.autocast(model.device.type, dtype=dtype, enabled=low):
                say(f"  {name}: {_replayed(model, batch, soft_targets)}")


def _without_lost_teacher(settings: Config, saved: SavedModel) -> Config:
    """Return the settings without a teacher whose weights are no longer at its path, and print what is left out."""
    teacher = settings.optim.teacher
    if teacher is None:
        return settings
    there = teacher_of(settings)
    is_lost = there.fault is not None
    if not is_lost and there.digest == saved.hyper_parameters.get("teacher"):
        return settings
    left_out = "its summaries" if settings.optim.distill is Distill.beams else "its part of the loss"
    state = "is no longer there" if is_lost else "has other weights than in the fit"
    say(f"optim.teacher={teacher} {state}: the steps are replayed without {left_out}.")
    return replace(settings, optim=replace(settings.optim, distill=Distill.none, teacher=None))


def _replayed(model: Any, batch: dict[str, Any], soft_targets: "SoftTargets | None") -> str:
    """Run one forward and backward pass, and describe where it is not finite."""
    import torch

    found: list[str] = []
    largest = 0.0

    def look(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            nonlocal largest
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor) and first.is_floating_point() and first.numel():
                if not torch.isfinite(first).all():
                    found.append(name)
                else:
                    largest = max(largest, float(first.abs().max()))

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in model.named_modules()]
    try:
        model.zero_grad()
        ids = batch["input_ids"], batch["attention_mask"], batch["labels"]
        loss, _, tokens = model.training_loss(*ids, soft_targets=soft_targets)
        (loss / tokens).backward()
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"first non-finite output: {found[0]}"
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    if bad:
        return f"the loss is finite ({float(loss / tokens):.3f}), but the gradient of {bad[0]} is not"
    return f"finite: loss {float(loss / tokens):.3f}, largest output value {largest:.3g}"
