"""What a researcher chooses about training (conf/optim, conf/trainer, conf/logger)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Decay(StrEnum):
    linear = "linear"
    cosine = "cosine"
    inverse_sqrt = "inverse_sqrt"
    constant = "constant"


ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu", "hpu")
PRECISIONS = (
    *("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    *("32", "16", "bf16", "64", "transformer-engine", "transformer-engine-float16"),
)


@dataclass
class OptimSettings:
    """AdamW with one rate for each part."""

    encoder_rate: float = 5e-5
    """Peak learning rate of the pretrained encoder."""
    decoder_rate: float = 5e-5
    """Peak learning rate of the pretrained decoder."""
    new_rate: float = 2e-4
    """Peak learning rate of parameters that no checkpoint gave: cross-attention, projection, fresh heads."""
    gate_rate: float = 2e-2
    """Peak learning rate of the gates of grafted cross-attention: a number for each layer, with about 1 to go."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases and norms have none."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """AdamW's two decay rates."""
    warmup_steps: int | None = None
    """Optimizer steps of linear warm-up; null is ``warmup_fraction`` of all steps."""
    warmup_fraction: float = 0.06
    """Share of all optimizer steps spent warming up."""
    decay: Decay = Decay.linear
    """How the rate falls after warm-up."""
    label_smoothing: float = 0.0
    """Share of the target distribution spread over the vocabulary."""


@dataclass
class TrainerSettings:
    """How long and on what. ``extra`` passes anything else to lightning.Trainer by its own name."""

    max_epochs: int = 3
    """Passes over the training data."""
    max_steps: int = -1
    """Optimizer steps; -1 is no bound. Whichever of epochs and steps comes first ends the fit."""
    max_minutes: float | None = None
    """Wall-clock bound of the fit in minutes; the schedule follows steps, not minutes."""
    accumulate: int = 1
    """Batches of one optimizer step; the loss is normalised by the label tokens of all of them."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    precision: str = "auto"
    """``auto`` (bf16 mixed where the device computes it fast, else fp32) or a Lightning precision such as 32-true."""
    accelerator: str = "auto"
    """Lightning accelerator: auto, cpu, gpu."""
    devices: int = 1
    """Devices of each node."""
    nodes: int = 1
    """Machines of a cluster, each with so many devices."""
    strategy: str = "auto"
    """auto, ddp (each device holds the model), fsdp (devices hold shards of it), or another Lightning strategy."""
    timeout_minutes: float = 10.0
    """Minutes after which a job of several ranks ends because one of them does not answer."""
    validations_per_epoch: int = 1
    """Validation runs in each epoch, evenly spread between optimizer steps; the last is at its end."""
    validation_samples: int = 64
    """Validation examples that are summarised and scored by ROUGE at each validation; 0 measures the loss alone."""
    monitor: str = "validation/loss"
    """Metric that picks the best checkpoint."""
    monitor_mode: str = "min"
    """min or max: which direction of ``monitor`` is better."""
    patience: int | None = None
    """Validations without improvement before the fit stops; null never stops early."""
    save_every: int | None = None
    """Optimizer steps between checkpoints beside those of validations; null saves at validations alone."""
    skip_limit: int = 10
    """Steps that may be skipped because their loss or gradient is not finite; one more ends the fit."""
    keep_last: int = 2
    """How many of the newest checkpoints to keep, against a damaged one."""
    log_every: int = 10
    """Optimizer steps between logged training metrics."""
    progress_bar: bool = True
    """Show a progress bar."""
    compile: bool = False
    """Compile the layers of both halves (torch.compile): a minute or more at the first batch, then faster steps."""
    checkpoint_activations: bool = False
    """Keep the input of each layer alone and compute the rest again backward: less memory, about a third more work."""
    keep_freed_memory: bool = True
    """Keep what a step freed for the next one (glibc): faster on a CPU, for up to half as much memory again."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of lightning.Trainer."""


@dataclass
class LoggerSettings:
    """CSV is always written; Weights & Biases on request."""

    name: str = "csv"
    """Name of the choice: csv or wandb."""
    wandb: bool = False
    """Also log to Weights & Biases: online where a key is configured, else offline. An evaluation logs only where its
    own command names it: to its fit's run if it scores best.ckpt under the fit's settings, else to a new run."""
    project: str = "warmstart"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null is the account's default."""
    group: str | None = None
    """W&B group of this run, such as a sweep's name."""
    tags: list[str] = field(default_factory=list)
    """W&B tags besides the choices themselves."""
    samples: int = 16
    """Rows of the validation sample table logged at each epoch."""
