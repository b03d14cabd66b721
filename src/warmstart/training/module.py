"""The LightningModule: loss by label tokens of the whole optimizer step, and validation that also reads summaries.

Each batch's backward pass adds the *sum* of its loss; before clipping, gradients are divided once by the label tokens
of all batches and ranks of the step. So accumulation and ranks change nothing, however unequal the batches.
"""

import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from warmstart.training.optimizer import build_optimizer
from warmstart.training.schedule import rate_factor
from warmstart.training.settings import OptimSettings

Score = Callable[[list[str], list[str]], dict[str, float]]


class SummarizationModule(L.LightningModule):
    """Fine-tunes an ``EncoderDecoderModel``.

    Args:
        model: the joined model.
        tokenizers: the pair that decodes validation summaries.
        optim: rates, schedule, smoothing.
        generation: plain keyword arguments of ``generate`` for the validation sample.
        total_steps: optimizer steps that the schedule spans.
        hparams: plain values to keep in the checkpoint.
        validation_samples: examples that each validation summarises.
        log_every: optimizer steps between logged rates and throughput.
        score: predictions and references to mean scores by name.
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
    ) -> None:
        super().__init__()
        self.save_hyperparameters(hparams)
        self.model = model
        self.tokenizers = tokenizers
        self.optim = optim
        self.generation = generation
        self.total_steps = total_steps
        self.validation_samples = validation_samples
        self.score = score
        self.log_every = log_every
        self.samples: list[dict[str, Any]] = []  # the last validation's: index, prediction, reference
        self._step_tokens: Tensor | None = None  # label tokens of the optimizer step so far
        self._meter = _Meter()

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(self.optim, self.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss, nll, tokens = self.model.training_loss(
            batch["input_ids"], batch["attention_mask"], batch["labels"], label_smoothing=self.optim.label_smoothing
        )
        self._step_tokens = tokens if self._step_tokens is None else self._step_tokens + tokens
        self._meter.count(batch)
        self.log("train/loss", nll / tokens, prog_bar=True)
        # Lightning divides by the number of accumulated batches; the division that counts comes before clipping.
        return loss * self.trainer.accumulate_grad_batches

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        # Lightning's own refuses fused optimizers under mixed precision, and comes here after unscaling in any case.
        assert self._step_tokens is not None
        tokens = self._step_tokens.float()
        world = 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            world = torch.distributed.get_world_size()
            torch.distributed.all_reduce(tokens)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters]
        # DDP averaged the gradients over ranks; the sum is wanted.
        torch._foreach_mul_(gradients, world / tokens)
        self._step_tokens = None
        norm = torch.nn.utils.get_total_norm(gradients)
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(parameters, float(gradient_clip_val), norm)
        self.log("train/gradient_norm", norm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step % max(self.log_every, 1) == 0:
            for group in self.trainer.optimizers[0].param_groups:
                if not group["name"].endswith("_no_decay"):
                    self.log(f"rate/{group['name']}", group["lr"])
            self.log_dict(self._meter.read())

    def on_validation_epoch_start(self) -> None:
        self._meter.pause()
        self._nll = torch.zeros((), device=self.device)
        self._tokens = torch.zeros((), device=self.device)
        self.samples = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        _, nll, tokens = self.model.training_loss(batch["input_ids"], batch["attention_mask"], batch["labels"])
        self._nll += nll
        self._tokens += tokens
        wanted = self.validation_samples - len(self.samples)
        if self.score is not None and wanted > 0:
            ids = self.model.generate(
                batch["input_ids"][:wanted], attention_mask=batch["attention_mask"][:wanted], **self.generation
            )
            labels = [row[row != -100].tolist() for row in batch["labels"][:wanted]]
            texts = zip(self.tokenizers.decode(ids[:, 1:]), self.tokenizers.decode(labels), strict=True)
            for index, (prediction, reference) in zip(batch["index"].tolist(), texts, strict=False):
                self.samples.append({"index": index, "prediction": prediction, "reference": reference})

    def on_validation_epoch_end(self) -> None:
        sums = torch.stack([self._nll, self._tokens])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        self.log("validation/loss", sums[0] / sums[1], prog_bar=True)
        if self.score is not None and self.samples:
            scores = self.score([s["prediction"] for s in self.samples], [s["reference"] for s in self.samples])
            self.log_dict({f"validation/{name}": value for name, value in scores.items()}, sync_dist=True)
        self._meter.resume()

    def throughput(self) -> dict[str, float]:
        """Mean over the whole fit, as result.json reports it."""
        return self._meter.total()


class _Meter:
    """Tokens without padding a second, examples a second, and the share of padding; validation time left out."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None
        self._examples = self._places = 0
        self._tokens: Tensor | int = 0

    def count(self, batch: dict[str, Tensor]) -> None:
        if self._since is None:
            self._since = time.perf_counter()
        self._examples += len(batch["input_ids"])
        # Masks come from the loader; where they are on a device, adding there would wait for it.
        self._tokens = self._tokens + batch["attention_mask"].sum() + (batch["labels"] != -100).sum()
        self._places += batch["input_ids"].numel() + batch["labels"].numel()

    def pause(self) -> None:
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def resume(self) -> None:
        if self._places:
            self._since = time.perf_counter()

    def total(self) -> dict[str, float]:
        self.pause()
        seconds = max(self._seconds, 1e-9)
        return {
            "tokens_per_second": float(self._tokens) / seconds,
            "examples_per_second": self._examples / seconds,
            "padding_fraction": 1 - float(self._tokens) / self._places if self._places else 0.0,
        }

    def read(self) -> dict[str, float]:
        running = self.total()
        self.resume()
        return {f"throughput/{name}": value for name, value in running.items()}
