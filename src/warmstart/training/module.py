"""The LightningModule: loss by label tokens of the whole optimizer step, and validation that also reads summaries.

Each batch's backward pass adds the *sum* of its loss; before clipping, gradients are divided once by the label tokens
of all batches and ranks of the step. So accumulation and ranks change nothing, however unequal the batches, and a
window that the end of an epoch cuts short is divided by its own tokens.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from warmstart import __version__
from warmstart.config.training import OptimSettings
from warmstart.cpu.build import build_cpu_kernels
from warmstart.errors import UserError
from warmstart.model.compiling import compiled_layers
from warmstart.profiling.flops import TrainingFlops, count_flops
from warmstart.profiling.matrix_peak import MatrixPeak, matrix_peak
from warmstart.runs.run_dir import RunDir
from warmstart.seeding import seed_of
from warmstart.training.callbacks.unfreeze import Thaw
from warmstart.training.loggers.jsonl import keep_only_before
from warmstart.training.nonfinite import REMEDY, LossWatch
from warmstart.training.optimizer import build_optimizer
from warmstart.training.schedule import build_schedule
from warmstart.training.throughput import ThroughputMeter, peak_memory_bytes
from warmstart.training.validation_sample import ValidationSample, gathered

Score = Callable[[list[str], list[str]], dict[str, float]]

_log = logging.getLogger(__name__)
FORMAT = 1  # of what a checkpoint holds beside Lightning's own
EFFECT_ROWS = 64  # validation examples on each rank that are also given another document
IGNORED = 0.002  # nats a token

# What the backward pass multiplies a summed loss by: with fp16's loss scaling, sums over thousands of tokens would
# overflow for the first steps. A power of two, so that no bit of the gradients changes; divided out with the tokens.
SUM_SCALE = 2.0**-12


class SummarizationModule(L.LightningModule):
    """Fine-tunes an ``EncoderDecoderModel``.

    Args:
        model: the joined model.
        tokenizers: the pair that decodes validation summaries.
        optim: rates, schedule, smoothing.
        generation: plain keyword arguments of ``generate`` for the validation sample.
        total_steps: optimizer steps that the schedule spans.
        hparams: plain values to keep in the checkpoint; anything else could not be loaded with ``weights_only=True``.
        validation_samples: examples that each validation summarises, the first ones of the split.
        score: predictions and references to mean scores by name.
        log_every: optimizer steps between logged rates and throughput; the trainer's ``log_every_n_steps``.
        thaw_after: optimizer steps for which new parts train alone (``bridge.warmup_steps``).
        seed: of dropout; with the rank, the epoch and the batch's number it says what a batch draws.
        skip_limit: optimizer steps that may be skipped for a loss or gradient that is not finite.
    """

    def __init__(
        self,
        model: Any,
        tokenizers: Any,
        optim: OptimSettings,
        generation: dict[str, Any],
        *,
        total_steps: int,
        hparams: dict[str, Any],
        validation_samples: int = 0,
        score: Score | None = None,
        log_every: int = 10,
        thaw_after: int = 0,
        seed: int = 0,
        skip_limit: int = 10,
    ) -> None:
        super().__init__()
        require_plain(hparams)
        # Loggers are given the config when they are built: not a second time under other names.
        self.save_hyperparameters(hparams, logger=False)
        self.model = model
        self.tokenizers = tokenizers
        self.optim = optim
        self.generation = generation
        self.total_steps = total_steps
        self.score = score
        self.log_every = max(log_every, 1)
        self.thaw_after = thaw_after
        self.seed = seed
        self.samples: list[dict[str, Any]] = []  # the last validation's: index, prediction, reference
        self._sample = ValidationSample(validation_samples, getattr(tokenizers, "source_pad_id", 0))
        self._step_sums: Tensor | None = None  # likelihood and label tokens of the optimizer step so far
        self._in_parts = False  # whether batches are decoded in the parts that they name
        self._meter = ThroughputMeter()
        self._flops: tuple[bool, TrainingFlops] | None = None  # whether the halves train already, and a step's FLOPs
        self._peak: MatrixPeak | None = None
        self._watch = LossWatch(skip_limit)

    def configure_optimizers(self) -> Any:
        # A fused optimizer would divide by fp16's loss scale inside its step, after clipping had seen scaled gradients.
        optimizer = build_optimizer(self.model, self.optim, fused=False if self._scaled else None)
        schedule = build_schedule(optimizer, self.optim, self.total_steps, self.thaw_after)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        return [Thaw(self.thaw_after)] if self.thaw_after else []

    @property
    def _scaled(self) -> bool:
        """Whether gradients are under a loss scale, as fp16's are."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    @property
    def between_steps(self) -> bool:
        """Whether no batch of an optimizer step that is yet to come was trained on."""
        return self._step_sums is None

    # --- training --------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        # Ranks have unequal numbers of parts; shards are gathered at every pass of the decoder, by all ranks or none.
        holds_all = isinstance(self.trainer.strategy, DDPStrategy | SingleDeviceStrategy)
        # Parts of one row or without a padded source would double the graphs, past the limit of what torch compiles.
        self._in_parts = holds_all and not compiled_layers(self.model)
        self._peak = matrix_peak(self.device, str(self.trainer.precision))
        if self._sample.size > 0 and self.device.type == "cpu":
            build_cpu_kernels()  # for the summaries of validations

    def on_train_start(self) -> None:
        if self.trainer.is_global_zero:
            keep_only_before(self._run_dir.skipped_steps, self.global_step)

    def on_train_epoch_start(self) -> None:
        self._step_sums = None

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        # What dropout draws is a matter of the seed, the rank and the batch, not of what was drawn before: a resumed
        # fit repeats it, whatever validations, loaders and earlier jobs have drawn meanwhile.
        torch.manual_seed(seed_of(self.seed, self.global_rank, self.current_epoch, batch_idx))
        # Lightning counts the step that loggers see apart from global_step, and is one ahead of it after a resume.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        parts = batch.get("parts") if self._in_parts else None
        ids = batch["input_ids"], batch["attention_mask"], batch["labels"]
        loss, nll, tokens = self.model.training_loss(*ids, label_smoothing=self.optim.label_smoothing, parts=parts)
        sums = torch.stack([nll.detach().float(), tokens.float()])
        self._step_sums = sums if self._step_sums is None else self._step_sums + sums
        self._meter.count(batch, self._flops_now(), parts)
        self._watch.take(batch)
        # Lightning divides by the number of accumulated batches; the division that counts comes before clipping.
        return loss * (self.trainer.accumulate_grad_batches * SUM_SCALE)

    def _flops_now(self) -> TrainingFlops:
        thawed = self.global_step >= self.thaw_after
        if self._flops is None or self._flops[0] != thawed:
            self._flops = thawed, count_flops(self.model)
        return self._flops[1]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Once for each optimizer step, with or without clipping, after any unscaling: divide, then clip by norm."""
        # Lightning's own refuses fused optimizers under mixed precision, also where there is nothing to unscale.
        assert self._step_sums is not None
        nll, tokens = _summed_over_ranks(self._step_sums)
        self._step_sums = None
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        # DDP and FSDP averaged the gradients over ranks; the sum is wanted.
        torch._foreach_mul_(_local(gradients), self.trainer.world_size / (SUM_SCALE * tokens.clamp(min=1)))
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(parameters, float(gradient_clip_val), norm)
        loss = nll / tokens.clamp(min=1)
        place = {"step": self.global_step, "epoch": self.current_epoch}
        self._watch.judge(optimizer, loss, norm, **place, scaled=self._scaled)
        self._log_step(optimizer, loss, norm)

    def _log_step(self, optimizer: Any, loss: Tensor, norm: Tensor) -> None:
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/gradient_norm", norm)
        for group in optimizer.param_groups:
            if not group["name"].endswith("_no_decay"):
                self.log(f"rate/{group['name']}", group["lr"])
        if (self.global_step + 1) % self.log_every == 0:  # these read the device, which waits for it
            self._watch.compare(loss)
            if self._read_watch():
                self.trainer.save_checkpoint(self._run_dir.checkpoints.nonfinite)
                groups = self.trainer.optimizers[0].param_groups
                raise self._watch.too_many(", ".join(f"{group['name']} {group['lr']:.2g}" for group in groups))
            self.log("train/skipped_steps", float(self._watch.skipped))
            for name, value in self._meter.since_last_read(self.trainer.world_size, self._peak).items():
                self.log(f"throughput/{name}", value)
            self.log("memory/peak_bytes", float(peak_memory_bytes(self.device)))

    @property
    def _run_dir(self) -> RunDir:
        return RunDir(Path(self.trainer.default_root_dir))

    def _read_watch(self) -> bool:
        return self._watch.read(self._run_dir.path, self.trainer.is_global_zero)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._read_watch()  # else steps since the last reading would be counted by neither this fit nor its resumption
        checkpoint["warmstart"] = {"version": __version__, "format": FORMAT, "skipped_steps": self._watch.skipped}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise a UserError for a checkpoint of a later version, whose format this one does not know."""
        about = checkpoint.get("warmstart", {})
        if about.get("format", FORMAT) > FORMAT:
            raise UserError(
                f"warmstart {about['version']} wrote this checkpoint; {__version__} cannot read it. Upgrade."
            )
        self._watch.skipped = about.get("skipped_steps", 0)

    # --- validation ------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._meter.pause()
        self._validation_sums = torch.zeros(2, device=self.device)
        self._effect_sums, self._effect_rows = torch.zeros(2, device=self.device), 0
        self._sample.clear()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        _, nll, tokens = self.model.training_loss(batch["input_ids"], batch["attention_mask"], batch["labels"])
        self._validation_sums += torch.stack([nll.float(), tokens.float()])
        if self._effect_rows < EFFECT_ROWS and len(batch["labels"]) > 1:
            self._effect_rows += len(batch["labels"])
            exchanged = batch["input_ids"].roll(1, 0), batch["attention_mask"].roll(1, 0)
            _, other, _ = self.model.training_loss(*exchanged, batch["labels"])
            self._effect_sums += torch.stack([(other - nll).float(), tokens.float()])
        self._sample.take(batch)

    def on_validation_epoch_end(self) -> None:
        nll, tokens = _summed_over_ranks(self._validation_sums)
        if not (self.trainer.sanity_checking or torch.isfinite(nll / tokens)):
            raise UserError(
                f"The validation loss is {float(nll / tokens)} at optimizer step {self.global_step}: training "
                f"diverged. {REMEDY} checkpoints/ holds the state of the last sound validation."
            )
        self._judge_source()
        self.log("validation/loss", nll / tokens, prog_bar=True)
        with self.trainer.precision_plugin.val_step_context():
            own = self._sample.summarize(self.model, self.tokenizers, self.generation)
        self.samples = gathered(own)
        if self.score is not None and self.samples:
            scores = self.score([s["prediction"] for s in self.samples], [s["reference"] for s in self.samples])
            # Every rank has all samples and so the same means.
            self.log_dict({f"validation/{name}": float(value) for name, value in scores.items()})
        self._meter.resume()

    def _judge_source(self) -> None:
        """How much likelier summaries are with their own document than with another: nats a token, 0 reads nothing."""
        effect, tokens = _summed_over_ranks(self._effect_sums)
        if not tokens:  # batches of one row have no other document
            return
        self.log("validation/source_effect", effect / tokens)
        if self.global_step >= self.total_steps and effect / tokens < IGNORED:
            _log.warning(
                "The fit ends with a model that ignores its document: its own makes a summary %.4f nats a token "
                "likelier than another. Train longer, raise optim.new_rate, or see bridge.init and bridge.gate.",
                float(effect / tokens),
            )

    def throughput(self) -> dict[str, float]:
        """Mean over the whole fit and all ranks, as result.json reports it, and the peak that ``mfu`` is a share of."""
        peak = {} if self._peak is None else {"matrix_peak_flops_per_second": self._peak.flops_per_second}
        return self._meter.total(self.trainer.world_size, self._peak) | peak


def require_plain(value: Any, where: str = "hparams") -> None:
    """Raise a TypeError that names the first value which is not a plain Python one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if type(key) not in (str, int):
                raise TypeError(f"{where} has the key {key!r} of type {type(key).__name__}; keys are strings.")
            require_plain(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            require_plain(inner, f"{where}[{i}]")
    elif type(value) not in (str, int, float, bool, type(None)):  # an enum is a str by isinstance, and pickles as code
        raise TypeError(f"{where} is {value!r} of type {type(value).__name__}; a checkpoint holds plain values only.")


def _local(gradients: list[Tensor]) -> list[Tensor]:
    """The same memory; of a sharded gradient this rank's part."""
    return [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]


def _summed_over_ranks(sums: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    return sums
