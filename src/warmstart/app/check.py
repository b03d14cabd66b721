"""Every fault of a config at once, before anything is downloaded or trained.

    python run.py task=check encoder=bert decoder=gpt2

``validate`` is what ``fit`` runs first; the task also says what the run would hold.
"""

from pathlib import Path
from typing import Any

from warmstart.app.schema import Config
from warmstart.data.settings import DataKind
from warmstart.errors import UserError
from warmstart.model.settings import Freeze, Scale, Share, Weights


def faults(settings: Config) -> list[str]:
    """One sentence for each fault: what was asked, what is wrong, what to do."""
    from warmstart.model.halves import half_config, maximum_positions, resolve_path
    from warmstart.training.trainer import check_extra

    found: list[str] = []
    for name in ("encoder_rate", "decoder_rate", "new_rate"):
        if (rate := getattr(settings.optim, name)) < 0:
            found.append(f"optim.{name}={rate}: a learning rate cannot be negative.")
    if not 0 <= settings.optim.label_smoothing < 1:
        found.append(f"optim.label_smoothing={settings.optim.label_smoothing}: it lies from 0 to below 1.")
    if len(settings.optim.betas) != 2:
        found.append(f"optim.betas={settings.optim.betas}: AdamW takes two.")
    batch = settings.data.batch
    if batch.max_tokens is None and batch.size is None:
        found.append("data.batch: set max_tokens (a token budget) or size (examples in a batch).")
    if settings.data.max_source_length < 2 or settings.data.max_target_length < 2:
        found.append("data.max_source_length and data.max_target_length: at least 2 tokens.")
    try:
        check_extra(settings.trainer.extra)
    except UserError as error:
        found.append(str(error))
    if settings.bridge.freeze is not Freeze.none and settings.bridge.share is Share.weights:
        found.append("bridge.freeze and bridge.share=weights contradict: the halves are one. Choose one.")
    if settings.data.kind is DataKind.files:
        named = [settings.data.path, settings.data.train_path, settings.data.validation_path, settings.data.test_path]
        if not any(named):
            found.append("data=files: set data.path or data.train_path to your file or folder.")
        found += [f"data: {path} does not exist." for path in named if path and not Path(path).exists()]
    lengths = {"encoder": settings.data.max_source_length, "decoder": settings.data.max_target_length}
    for role, half in (("encoder", settings.encoder), ("decoder", settings.decoder)):
        if half.scale is Scale.tiny and half.weights is Weights.pretrained:
            found.append(f"{role}.scale=tiny needs {role}.weights=random: no checkpoint has that size.")
            continue
        # A hub's config would need the network; the type's defaults and ``architecture`` say the same.
        local = half.path.startswith("package_file:") or Path(half.path).exists()
        try:
            stand_in = half if local else _untrained(half)
            config = half_config(stand_in, role)  # type: ignore[arg-type]
            positions = maximum_positions(config)
            if local and half.weights is Weights.pretrained:
                resolve_path(half.path)
        except UserError as error:
            found.append(str(error))
            continue
        length = lengths[role]
        option = "data.max_source_length" if role == "encoder" else "data.max_target_length"
        if positions is not None and length > positions:
            found.append(
                f"{option}={length}, but {role}={half.name} has {positions} positions. Set at most {positions}."
            )
    return found


def validate(settings: Config) -> None:
    """Raise one :class:`UserError` that lists every fault."""
    found = faults(settings)
    if len(found) == 1:
        raise UserError(found[0])
    if found:
        raise UserError(f"{len(found)} faults in this config:\n" + "\n".join(f"  - {fault}" for fault in found))


def run(settings: Config, run_dir: Path) -> None:
    """Print parameters and memory of the run, or every fault."""
    import torch
    from rich.console import Console

    from warmstart.model.config import EncoderDecoderConfig
    from warmstart.model.halves import half_config, parameter_counts
    from warmstart.model.modeling import EncoderDecoderModel

    validate(settings)
    with torch.device("meta"):
        halves: dict[str, Any] = {
            "encoder": half_config(_untrained(settings.encoder), "encoder"),
            "decoder": half_config(_untrained(settings.decoder), "decoder"),
        }
        shared = settings.bridge.share is Share.weights
        model = EncoderDecoderModel(EncoderDecoderConfig(**halves, tie_encoder_decoder=shared))
    total = parameter_counts(model)["total"]
    console = Console()
    console.print(f"encoder={settings.encoder.name} decoder={settings.decoder.name}: no faults found.")
    console.print(
        f"{total / 1e6:.1f}M parameters, {parameter_counts(model)['new'] / 1e6:.1f}M of them cross-attention."
    )
    console.print(f"Weights, gradients and AdamW in fp32: {16 * total / 2**30:.2f} GiB, activations beside them.")


def _untrained(half: Any) -> Any:
    from dataclasses import replace

    return replace(half, weights=Weights.random)
