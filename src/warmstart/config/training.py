"""Options of training (conf/optim, conf/trainer, conf/logger)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from warmstart.config.metrics import SCORES
from warmstart.config.option import option


class Decay(StrEnum):
    """The shape of the learning-rate schedule after warm-up.

    With ``noam`` (Vaswani et al. 2017; Rothe et al. 2020) the learning rates of the config are not peaks but factors:
    in optimizer step s = 1, 2, ... the learning rate is

        factor * hidden_size ** -0.5 * min(s ** -0.5, s * warmup_steps ** -1.5)

    with the hidden size of the decoder. It peaks at s = warmup_steps, at factor / sqrt(hidden_size * warmup_steps).
    """

    linear = "linear"
    cosine = "cosine"
    inverse_sqrt = "inverse_sqrt"
    constant = "constant"
    noam = "noam"


class Distill(StrEnum):
    """What a fit learns from a teacher, a trained run."""

    none = "none"
    logits = "logits"
    beams = "beams"


class NewOptimizer(StrEnum):
    """The optimizer of matrices that are in no checkpoint."""

    adamw = "adamw"
    muon = "muon"


ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu", "hpu")
PRECISIONS = (
    *("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    *("32", "16", "bf16", "64", "transformer-engine", "transformer-engine-float16"),
)
# The metrics that can choose the best checkpoint, and whether lower or higher is better; None if the user decides.
MONITORS: dict[str, str | None] = {
    "validation/loss": "min",
    "validation/source_effect": "max",
    **{f"validation/{name}": score.better for name, score in SCORES.items()},
}


@dataclass
class OptimSettings:
    """The optimizer, with a learning rate for each part of the model."""

    encoder_rate: float = option(
        5e-5,
        at_least=0,
        at_most=1,
        doc="Peak learning rate of the pretrained encoder, and of pretrained parameters that `bridge.share` shares "
        "with the decoder.",
    )
    decoder_rate: float = option(
        5e-5,
        at_least=0,
        at_most=1,
        doc="Peak learning rate of the pretrained decoder, except for parameters that `bridge.share` shares.",
    )
    new_rate: float = option(
        2e-4,
        at_least=0,
        at_most=1,
        doc="Peak learning rate of parameters that are in no checkpoint: new cross-attention, the projection, new LM "
        "heads, LoRA adapters, and all of an encoder or decoder with `weights=random`.",
    )
    gate_rate: float = option(
        2e-2,
        at_least=0,
        at_most=1,
        doc="Peak learning rate of the gates of grafted cross-attention. A gate is a single number that changes by "
        "about 1 in training, so it needs a higher learning rate than matrices.",
    )
    new_optimizer: NewOptimizer = option(
        NewOptimizer.adamw,
        doc="Optimizer of the new matrices, except embeddings and output heads. `muon` (Jordan et al. 2024) moves a "
        "matrix along the orthogonalized average of its gradients; its steps are scaled so that learning rates of "
        "AdamW fit (Liu et al. 2025). All other parameters have AdamW. It needs torch 2.9.",
    )
    weight_decay: float = option(
        0.01,
        at_least=0,
        doc="Decoupled weight decay of matrices. Biases and normalization weights have none.",
    )
    betas: list[float] = option(
        default_factory=lambda: [0.9, 0.999],
        doc="Decay rates of AdamW's running averages of the gradient and of its square. Each is from 0 to below 1.",
    )
    warmup_steps: int | None = option(
        None,
        at_least=0,
        doc="Number of optimizer steps of linear learning-rate warm-up. null uses `optim.warmup_fraction`.",
    )
    warmup_fraction: float = option(
        0.06,
        at_least=0,
        at_most=1,
        doc="Fraction of all optimizer steps that are warm-up steps. It is used if `optim.warmup_steps` is null.",
    )
    encoder_warmup_steps: int | None = option(
        None,
        at_least=0,
        doc="Number of warm-up steps of the encoder's learning rate, if it has a schedule of its own, as in BertSum. "
        "null warms up all parameters together.",
    )
    decay: Decay = option(
        Decay.linear,
        doc="How the learning rate falls after warm-up. With `noam` the learning rates above are factors instead of "
        "peaks, as in Rothe et al. 2020: the peak is the factor divided by sqrt(hidden size of the decoder x warm-up "
        "steps), and the learning rate then falls with the inverse square root of the step.",
    )
    label_smoothing: float = option(
        0.0,
        at_least=0,
        below=1,
        doc="Fraction of the target probability that is spread evenly over the vocabulary.",
    )
    distill: Distill = option(
        Distill.none,
        doc="What the fit learns from `optim.teacher`. With `logits` the loss also compares the probabilities of both "
        "models at each label token (Hinton et al. 2015); both need the same tokenizers. With `beams` the teacher's "
        "summaries, by the search of `generation`, replace the summaries of the training split (Kim & Rush 2016); "
        "the teacher may have other tokenizers. The texts of validation and test stay as they are, and so does the "
        "logged loss.",
    )
    teacher: str | None = option(
        None,
        doc="The model that the fit learns from: a folder of a run (its best checkpoint), a .ckpt file in one, or an "
        "exported folder. It is only read.",
    )
    distill_weight: float = option(
        0.5,
        at_least=0,
        at_most=1,
        doc="Share of the loss that comes from the teacher with `optim.distill=logits`; the rest is the loss of the "
        "labels.",
    )
    distill_temperature: float = option(
        1.0,
        above=0,
        doc="Number that divides the logits of both models with `optim.distill=logits`. Above 1, improbable tokens "
        "count for more. The teacher's part of the loss is multiplied by its square, so that the gradient's "
        "scale does not depend on it.",
    )
    rdrop: float = option(
        0.0,
        at_least=0,
        doc="Weight of R-Drop (Liang et al. 2021). Each batch goes through the model twice with different dropout, and "
        "this number times the divergence of both outputs is added to the mean of both losses. 0 is one pass; the "
        "paper's alpha is twice this number.",
    )


class Recipe(StrEnum):
    """Who chooses the length of a fit and of its texts."""

    auto = "auto"
    none = "none"


@dataclass
class TrainerSettings:
    """How long a fit trains, and on which devices."""

    recipe: Recipe = option(
        Recipe.auto,
        changes_result=False,
        doc="With `auto` and `data=files`, epochs, batches, validations and lengths are chosen from the texts. "
        "Learning rates are chosen from the hidden sizes of encoder and decoder. `task=check` lists "
        "all with the reasons. Values that the command line or a chosen config file sets are kept. `none` uses the "
        "defaults. An experiment, `debug=tiny`, or a `data.objective` other than `summary` has the effect of `none`.",
    )
    max_epochs: int = option(
        3,
        at_least=1,
        doc="Largest number of passes over the training data. The fit ends at this limit or at `trainer.max_steps`, "
        "whichever is reached first.",
    )
    max_steps: int = option(
        -1,
        at_least=1,
        no_bound=-1,
        doc="Largest number of optimizer steps. -1 sets no limit.",
    )
    max_minutes: float | None = option(
        None,
        above=0,
        at_most=5_256_000,  # ten years; a timedelta cannot hold much more
        doc="Longest duration of the fit in minutes. The learning-rate schedule depends only on steps, so a fit that "
        "ends at this limit has not reached the end of its schedule.",
    )
    budget_minutes: float | None = option(
        None,
        above=0,
        at_most=5_256_000,
        doc="Minutes that the optimizer steps may take, on one device. Some steps are timed before the fit, and if all "
        "would take longer, the fit takes fewer, with a learning-rate schedule that ends with them; it keeps at least "
        "a quarter of them. The log reports this before training starts. Validation and test are not counted.",
    )
    measure_threads: bool = option(
        False,
        doc="Whether to time a step on the CPU with one thread and with all threads, and to use the faster. Where "
        "other work runs on the same cores, one thread can be several times faster.",
    )
    accumulate: int = option(
        1,
        at_least=1,
        doc="Number of batches in one optimizer step. The loss is averaged over the label tokens of all of them. Raise "
        "it for a larger effective batch in the same memory.",
    )
    clip_norm: float = option(
        1.0, at_least=0, doc="Largest norm of the gradient; larger gradients are scaled down to it. 0 does not clip."
    )
    precision: str = option(
        "auto",
        doc="Precision of training. `auto` is bf16 mixed precision if the device multiplies bf16 in hardware, else "
        "fp32. Other values are Lightning's names, such as 32-true or bf16-mixed.",
    )
    accelerator: str = option(
        "auto",
        doc="Kind of device, as Lightning names it: auto, cpu, gpu, cuda, mps, tpu or hpu.",
    )
    devices: int = option(1, at_least=1, doc="Number of devices on each node.")
    nodes: int = option(
        1,
        at_least=1,
        doc="Number of machines, each with `trainer.devices` devices.",
    )
    strategy: str = option(
        "auto",
        doc="How several devices work together. With `ddp` each device holds the whole model; with `fsdp` each holds a "
        "shard of it. Lightning's other strategies are accepted too.",
    )
    timeout_minutes: float = option(
        10.0,
        above=0,
        at_most=10_000,
        changes_result=False,
        doc="Number of minutes without a response from one process after which a job of several processes ends.",
    )
    validations_per_epoch: int = option(
        1,
        at_least=1,
        doc="Number of validations in each epoch. They are spread evenly over its optimizer steps; the last one is at "
        "the end of the epoch.",
    )
    epochs_per_validation: int = option(
        1,
        at_least=1,
        doc="Number of epochs from one validation to the next. With 2 or more, `trainer.validations_per_epoch` must be "
        "1. The fit always ends with a validation.",
    )
    validation_samples: int = option(
        64,
        at_least=0,
        doc="Number of validation examples, the first ones, that are summarized and scored at each validation of a "
        "fit. 0 measures only the loss, which is faster.",
    )
    monitor: str = option(
        "validation/loss",
        choices=tuple(MONITORS),
        doc="Metric that chooses the best checkpoint. All but the loss and the source effect are scores of "
        "`evaluation.metrics`, and need `trainer.validation_samples`.",
    )
    monitor_mode: str = option(
        "min",
        choices=("min", "max"),
        doc="Whether lower or higher values of `trainer.monitor` are better: `min` for the loss, TER and "
        "`repeated_3grams`, `max` for most others.",
    )
    patience: int | None = option(
        None,
        at_least=1,
        doc="Number of validations without improvement after which the fit stops. null never stops early.",
    )
    save_every: int | None = option(
        None,
        at_least=1,
        changes_result=False,
        doc="Number of optimizer steps between checkpoints, in addition to those at each validation. null saves only "
        "at validations. Set it if a run may be interrupted long before its next validation.",
    )
    skip_limit: int = option(
        10,
        at_least=0,
        changes_result=False,
        doc="Number of optimizer steps that may be skipped because the loss or the gradient is not finite. If more "
        "are skipped, the fit ends when metrics are logged next (`trainer.log_every`).",
    )
    keep_last: int = option(
        2,
        at_least=1,
        changes_result=False,
        doc="Number of newest checkpoints to keep. With two or more, a fit can resume when the newest is corrupt.",
    )
    score_best: int = option(
        1,
        at_least=1,
        doc="Number of best checkpoints, by `trainer.monitor`, that are kept and scored on the test split, or on the "
        "validation split with `evaluation.test=false`. With 2 or more, `result.json` has the scores of each in "
        "`top_checkpoints`, and `top/N` its predictions. The export and all other scores are those of the best one.",
    )
    average_best: int = option(
        1,
        at_least=1,
        doc="Number of best checkpoints, by `trainer.monitor`, whose weights are averaged at the end of the fit. The "
        "average is validated, and replaces the best checkpoint if its validation score is better. 1 averages nothing.",
    )
    ema_decay: float | None = option(
        None,
        at_least=0,
        below=1,
        doc="Decay of an exponential moving average of the weights, such as 0.999. Validations, the best checkpoints "
        "and the export use the average instead of the weights. In update n, counted from 0, the decay is at most "
        "(1 + n) / (10 + n). null averages nothing.",
    )
    log_every: int = option(
        10,
        at_least=1,
        changes_result=False,
        doc="Number of optimizer steps between logged training metrics.",
    )
    progress_bar: bool = option(True, changes_result=False, doc="Whether a progress bar is shown.")
    compile: bool = option(
        False,
        doc="Whether the layers of encoder and decoder are compiled by torch.compile. The first batch then takes a "
        "minute or more, and later steps are faster.",
    )
    checkpoint_activations: bool = option(
        False,
        doc="Whether only the input of each layer is kept for the backward pass, and the other activations are "
        "recomputed. This saves memory and costs about a third more computation.",
    )
    keep_freed_memory: bool = option(
        True,
        doc="Whether the process keeps memory that a step has freed for the next step (only with glibc). Training on a "
        "CPU is then faster, but the process uses up to 50 % more memory. Set false if memory is short.",
    )
    extra: dict[str, Any] = option(
        default_factory=dict,
        doc="Further arguments of lightning.Trainer, under Lightning's own names.",
    )


@dataclass
class LoggerSettings:
    """Where metrics are logged; the CSV file is always written."""

    name: str = option("csv", doc="Name of the choice, csv or wandb. It has no effect: set `logger.wandb`.")
    wandb: bool = option(
        False,
        doc="Whether to log to Weights & Biases too: online if an API key is configured, otherwise offline. An "
        "evaluation logs there only if its own command sets this option. If it scores best.ckpt with the settings of "
        "the fit, its scores go to the W&B run of the fit; otherwise to a new W&B run.",
    )
    project: str = option("warmstart", doc="Project in Weights & Biases.")
    entity: str | None = option(None, doc="User or team in Weights & Biases. null is the default of the account.")
    group: str | None = option(
        None,
        doc="Group of the run in Weights & Biases. null is the name of the sweep, or no group outside a sweep.",
    )
    tags: list[str] = option(
        default_factory=list,
        doc="Tags in Weights & Biases, in addition to the names of encoder, decoder and data.",
    )
    samples: int = option(
        16,
        at_least=0,
        doc="Number of examples of each validation in `validation_samples.jsonl`, and in the table of Weights & "
        "Biases. There are at most `trainer.validation_samples`.",
    )
