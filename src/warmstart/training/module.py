"""The LightningModule: a loss normalised over the whole optimizer step, and validation that also scores summaries.

The backward pass of each batch adds the gradients of its *summed* loss. Before clipping, they are divided once by the
number of label tokens in all batches and ranks of the step. So the result does not depend on accumulation or on the
number of ranks, however unequal the batches are, and an incomplete step at the end of an epoch is normalised by its
own tokens.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.tensor import DTensor

from warmstart import __version__, cpu
from warmstart.compat.lightning import set_logged_step
from warmstart.config.training import OptimSettings
from warmstart.errors import UserError
from warmstart.model.compiling import compiled_layers
from warmstart.model.soft_targets import SoftTargets
from warmstart.profiling.flops import TrainingFlops, count_flops
from warmstart.profiling.matrix_peak import MatrixPeak, matrix_peak
from warmstart.runs.run_dir import RunDir
from warmstart.seeding import seed_of
from warmstart.training.callbacks.unfreeze import UnfreezePretrained
from warmstart.training.loggers.jsonl import keep_only_before
from warmstart.training.nonfinite import REMEDY, LossMonitor
from warmstart.training.optimizer import build_optimizer
from warmstart.training.schedule import build_schedule
from warmstart.training.throughput import ThroughputMeter, peak_memory_bytes
from warmstart.training.validation_sample import ValidationSample, gather_samples

Score = Callable[[list[dict[str, Any]]], dict[str, float]]

_log = logging.getLogger(__name__)
FORMAT = 1  # version of what a checkpoint holds in addition to Lightning's own entries
SOURCE_EFFECT_EXAMPLES = 64  # validation examples on each rank that are also scored with another document
MIN_SOURCE_EFFECT = 0.002  # nats per token; below it a model is reported to ignore its document

# The backward pass scales the summed loss by this: under fp16's loss scaling, a sum over thousands of tokens would
# overflow in the first steps. It is a power of two, so the gradients stay exact, and is divided out with the tokens.
SUM_SCALE = 2.0**-12


class SummarizationModule(L.LightningModule):
    """Fine-tunes an ``EncoderDecoderModel``.

    Args:
        model: the encoder-decoder model.
        tokenizers: the pair that decodes validation summaries.
        optim: learning rates, schedule and label smoothing.
        generation: plain keyword arguments of ``generate`` for the validation sample.
        total_steps: optimizer steps that the schedule spans.
        hparams: plain values to save in checkpoints; others could not be loaded with ``weights_only=True``.
        references: targets of the first validation examples, which each validation summarizes and scores.
        score: function from samples (index, prediction and reference of each) to scores by name.
        log_every: optimizer steps between logged learning rates and throughput; the trainer's ``log_every_n_steps``.
        unfreeze_after: optimizer steps in which only new parameters train (``bridge.warmup_steps``).
        soft_targets: further terms of the training loss; the teacher is not part of the module.
        seed: seed of dropout; with the rank, the epoch and the batch's number it determines what a batch draws.
        skip_limit: optimizer steps that may be skipped because their loss or gradient is not finite.
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
        references: Sequence[str] = (),
        score: Score | None = None,
        log_every: int = 10,
        unfreeze_after: int = 0,
        soft_targets: SoftTargets | None = None,
        seed: int = 0,
        skip_limit: int = 10,
    ) -> None:
        """Keep the model and the settings.

        Raises:
            TypeError: ``hparams`` holds a value that is not plain.
        """
        super().__init__()
        require_plain(hparams)
        # The loggers already have the config, so Lightning need not log it again under other names.
        self.save_hyperparameters(hparams, logger=False)
        self.model = model
        self.tokenizers = tokenizers
        self.optim = optim
        self.generation = generation
        self.total_steps = total_steps
        self.score = score
        self.log_every = max(log_every, 1)
        self.unfreeze_after = unfreeze_after
        self.soft_targets = soft_targets
        self.seed = seed
        self.samples: list[dict[str, Any]] = []  # index, prediction and reference of the last validation
        self._sample = ValidationSample(references, getattr(tokenizers, "source_pad_id", 0))
        self._step_sums: Tensor | None = None  # summed loss and label tokens of the current optimizer step
        self._use_buckets = False  # whether the decoder runs once for each target-length bucket
        self._meter = ThroughputMeter()
        self._flops: tuple[bool, TrainingFlops] | None = None  # whether pretrained parameters train, and a step's FLOPs
        self._peak: MatrixPeak | None = None
        self._losses = LossMonitor(skip_limit)

    def configure_optimizers(self) -> Any:
        """Return AdamW and the schedule, which advances with each optimizer step."""
        # A fused optimizer divides by fp16's loss scale inside its step, so clipping would see scaled gradients.
        optimizer = build_optimizer(self.model, self.optim, fused=False if self._scaled else None)
        hidden_size = self.model.config.decoder.hidden_size
        schedule = build_schedule(optimizer, self.optim, self.total_steps, self.unfreeze_after, hidden_size)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """Freeze pretrained parameters for the first ``unfreeze_after`` steps."""
        return [UnfreezePretrained(self.unfreeze_after)] if self.unfreeze_after else []

    @property
    def _scaled(self) -> bool:
        """Whether gradients have a loss scale, as in fp16-mixed."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    @property
    def between_steps(self) -> bool:
        """Whether no accumulated gradients are waiting for an optimizer step."""
        return self._step_sums is None

    # --- training --------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Measure the device's peak, and decide whether batches are decoded in target-length buckets."""
        # Sharded ranks gather parameters at each decoder pass, so all need equally many; numbers of buckets differ.
        holds_all = isinstance(self.trainer.strategy, DDPStrategy | SingleDeviceStrategy)
        # Buckets with one example or without source padding need further graphs, beyond torch.compile's limit.
        self._use_buckets = holds_all and not compiled_layers(self.model)
        self._peak = matrix_peak(self.device, str(self.trainer.precision))
        if self._sample.references and self.device.type == "cpu":
            cpu.build()  # validation generates summaries

    def on_train_start(self) -> None:
        """Drop recorded non-finite steps that a resumed fit takes again, and move the teacher to the device."""
        if self.soft_targets is not None:
            self.soft_targets.to(self.device, self.model.dtype)
        if self.trainer.is_global_zero:
            keep_only_before(self._run_dir.skipped_steps, self.global_step)

    def on_train_epoch_start(self) -> None:
        """Start with no accumulated batches."""
        self._step_sums = None

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Seed the batch's dropout."""
        # Dropout depends on seed, rank and batch, and on nothing drawn earlier: a resumed fit repeats it, whatever
        # validations, loaders and earlier jobs have drawn in between.
        torch.manual_seed(seed_of(self.seed, self.global_rank, self.current_epoch, batch_idx))
        # Lightning keeps the loggers' step apart from global_step; after a resume it is one too high.
        set_logged_step(self.trainer, self.global_step)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the scaled sum of the batch's loss over its label tokens, a scalar."""
        buckets = batch.get("buckets") if self._use_buckets else None
        ids = batch["input_ids"], batch["attention_mask"], batch["labels"]
        loss: Tensor
        loss, nll, tokens = self.model.training_loss(
            *ids, label_smoothing=self.optim.label_smoothing, buckets=buckets, soft_targets=self.soft_targets
        )
        sums = torch.stack([nll.detach().float(), tokens.float()])
        self._step_sums = sums if self._step_sums is None else self._step_sums + sums
        self._meter.count(batch, self._flops_now(), buckets)
        self._losses.add_batch(batch)
        # Lightning divides by the number of accumulated batches, which is undone here; configure_gradient_clipping
        # normalises the gradients.
        return loss * (self.trainer.accumulate_grad_batches * SUM_SCALE)

    def _flops_now(self) -> TrainingFlops:
        unfrozen = self.global_step >= self.unfreeze_after
        if self._flops is None or self._flops[0] != unfrozen:
            self._flops = unfrozen, count_flops(self.model)
        return self._flops[1]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Divide gradients by the step's label tokens, then clip them by norm.

        Lightning calls this once for each optimizer step, after any unscaling, also if clipping is off.
        """
        # Lightning's own clipping refuses fused optimizers under mixed precision, even if nothing is scaled.
        assert self._step_sums is not None
        nll, tokens = _summed_over_ranks(self._step_sums)
        self._step_sums = None
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        # DDP and FSDP average gradients over ranks; the factor world_size makes it a sum.
        torch._foreach_mul_(_local(gradients), self.trainer.world_size / (SUM_SCALE * tokens.clamp(min=1)))
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(parameters, float(gradient_clip_val), norm)
        loss = nll / tokens.clamp(min=1)
        progress = {"step": self.global_step, "epoch": self.current_epoch}
        self._losses.skip_if_nonfinite(optimizer, loss, norm, **progress, scaled=self._scaled)
        self._log_step(optimizer, loss, norm)

    def _log_step(self, optimizer: Any, loss: Tensor, norm: Tensor) -> None:
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/gradient_norm", norm)
        for group in optimizer.param_groups:
            if not group["name"].endswith("_no_decay"):
                self.log(f"rate/{group['name']}", group["lr"])
        if (self.global_step + 1) % self.log_every == 0:  # these synchronise with the device
            self._losses.warn_about_spike(loss)
            if self._log_skipped():
                self.trainer.save_checkpoint(self._run_dir.checkpoints.nonfinite)
                groups = self.trainer.optimizers[0].param_groups
                raise self._losses.divergence_error(", ".join(f"{group['name']} {group['lr']:.2g}" for group in groups))
            self.log("train/skipped_steps", float(self._losses.skipped))
            for name, value in self._meter.since_last_read(self.trainer.world_size, self._peak).items():
                self.log(f"throughput/{name}", value)
            self.log("memory/peak_bytes", float(peak_memory_bytes(self.device)))

    @property
    def _run_dir(self) -> RunDir:
        return RunDir(Path(self.trainer.default_root_dir))

    def _log_skipped(self) -> bool:
        return self._losses.log_skipped(self._run_dir.path, self.trainer.is_global_zero)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add warmstart's version, the format and the number of skipped steps."""
        self._log_skipped()  # so that a resumed fit also knows of the steps skipped since the last reading
        checkpoint["warmstart"] = {
            "version": __version__,
            "format": FORMAT,
            "skipped_steps": self._losses.skipped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of skipped steps.

        Raises:
            UserError: a later version of warmstart wrote the checkpoint in a format that this one does not know.
        """
        about = checkpoint.get("warmstart", {})
        if about.get("format", FORMAT) > FORMAT:
            raise UserError(
                f"warmstart {about['version']} wrote this checkpoint; {__version__} cannot read it. Upgrade."
            )
        self._losses.skipped = about.get("skipped_steps", 0)

    # --- validation ------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Reset the sums, and stop the clock of the throughput."""
        self._meter.pause()
        self._validation_sums = torch.zeros(2, device=self.device)
        self._effect_sums, self._effect_examples = torch.zeros(2, device=self.device), 0
        self._sample.clear()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add the batch's loss, for some batches also the loss with exchanged documents, and collect samples."""
        _, nll, tokens = self.model.training_loss(batch["input_ids"], batch["attention_mask"], batch["labels"])
        self._validation_sums += torch.stack([nll.float(), tokens.float()])
        has_effect = len(batch["labels"]) > 1 and not self.model.labels_are_of_source
        if has_effect and self._effect_examples < SOURCE_EFFECT_EXAMPLES:
            self._effect_examples += len(batch["labels"])
            exchanged = batch["input_ids"].roll(1, 0), batch["attention_mask"].roll(1, 0)
            _, other, _ = self.model.training_loss(*exchanged, batch["labels"])
            self._effect_sums += torch.stack([(other - nll).float(), tokens.float()])
        self._sample.take(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the loss, the effect of the source, and the scores of the generated samples.

        Raises:
            UserError: the loss is not finite.
        """
        nll, tokens = _summed_over_ranks(self._validation_sums)
        if not (self.trainer.sanity_checking or torch.isfinite(nll / tokens)):
            raise UserError(
                f"The validation loss is {float(nll / tokens)} at optimizer step {self.global_step}: training "
                f"diverged. {REMEDY} checkpoints/ holds the state of the last validation with a finite loss."
            )
        self._log_source_effect()
        self.log("validation/loss", nll / tokens, prog_bar=True)
        with self.trainer.precision_plugin.val_step_context():
            own = self._sample.summarize(self.model, self.tokenizers, self.generation)
        self.samples = gather_samples(own)
        if self.score is not None and self.samples:
            scores = self.score(self.samples)
            # No reduction: every rank has all samples, so the scores are equal.
            self.log_dict({f"validation/{name}": float(value) for name, value in scores.items()})
        self._meter.resume()

    def _log_source_effect(self) -> None:
        """Log how much the loss rises with another document, in nats per token; 0 means the source is ignored."""
        effect, tokens = _summed_over_ranks(self._effect_sums)
        if not tokens:  # a batch of one example has no other document, and labels of sentences are of their own
            return
        self.log("validation/source_effect", effect / tokens)
        is_of_fit = self.trainer.state.fn is TrainerFn.FITTING  # not the validation of an average after it
        if is_of_fit and self.global_step >= self.total_steps and effect / tokens < MIN_SOURCE_EFFECT:
            _log.warning(
                "The trained model ignores its document: another document raises the loss by only %.4f nats per token. "
                "Train longer, raise optim.new_rate, or change bridge.init or bridge.gate.",
                float(effect / tokens),
            )

    def throughput(self) -> dict[str, float]:
        """Return the mean throughput over the whole fit and all ranks, as ``result.json`` reports it.

        Returns:
            The values of ``ThroughputMeter.total``, and the measured peak in FLOP/s that ``mfu`` refers to.
        """
        peak = {} if self._peak is None else {"matrix_peak_flops_per_second": self._peak.flops_per_second}
        return self._meter.total(self.trainer.world_size, self._peak) | peak


def require_plain(value: Any, where: str = "hparams") -> None:
    """Check that ``value`` holds only dicts, lists, tuples, strings, numbers, booleans and None.

    Raises:
        TypeError: names the first other value; ``where`` is the path to it.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if type(key) not in (str, int):
                raise TypeError(f"{where} has the key {key!r} of type {type(key).__name__}; keys are strings.")
            require_plain(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            require_plain(inner, f"{where}[{i}]")
    elif type(value) not in (str, int, float, bool, type(None)):  # isinstance would accept a StrEnum, pickled as code
        raise TypeError(f"{where} is {value!r} of type {type(value).__name__}; a checkpoint holds plain values only.")


def _local(gradients: list[Tensor]) -> list[Tensor]:
    """Return the same memory; for a sharded gradient this rank's shard."""
    return [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]


def _summed_over_ranks(sums: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    return sums
