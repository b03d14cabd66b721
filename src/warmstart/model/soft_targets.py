"""Loss terms whose targets are distributions: distillation from a teacher's logits, and R-Drop.

    soft = SoftTargets(teacher=teacher, weight=0.5, temperature=2.0)
    loss = student.training_loss(**batch, soft_targets=soft).mean

With the labels' cross-entropy CE (Hinton et al. 2015, arXiv 1503.02531; at each label position, as in the word-level
distillation of Kim & Rush 2016, arXiv 1606.07947):

    (1 - weight) CE + weight T^2 KL(teacher at temperature T || student at temperature T)

R-Drop (Liang et al. 2021, arXiv 2106.14448) runs the model twice with different dropout, and adds to the mean of both
losses

    rdrop (KL(first || second) + KL(second || first)) / 2

The mean keeps the scale of the loss, as in the authors' example code. The paper's equation 4 has the sum of both losses
instead, so its alpha is twice ``rdrop``.

All terms are sums over label positions. Logits exist for ``CHUNK`` label positions at a time, as in ``loss.py``.

Shapes: B batch, S source length, T target length, N label positions, H hidden size, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from warmstart.model.dtypes import to_dtype
from warmstart.model.loss import IGNORED, Head, TrainingLoss, chunk_loss, in_chunks, lm_head


@dataclass
class SoftTargets:
    """Terms that ``training_loss`` adds. The teacher is set to evaluation mode and never trained."""

    teacher: Any = None
    """A joint model with the student's target vocabulary, on the student's device; None: no distillation."""
    weight: float = 0.5
    """Share of the loss that comes from the teacher."""
    temperature: float = 1.0
    """Both models' logits are divided by it."""
    rdrop: float = 0.0
    """Factor of the divergence between two passes; 0: one pass."""

    def __post_init__(self) -> None:
        if self.teacher is not None:
            self.teacher.eval().requires_grad_(False)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the teacher to a device and a dtype."""
        if self.teacher is not None:
            self.teacher.to(device)
            to_dtype(self.teacher, dtype)

    def loss(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        buckets: Sequence[Sequence[int]] | None = None,
    ) -> TrainingLoss:
        """Compute the loss of a training step; the arguments are those of ``training_loss``.

        Returns:
            ``summed`` with all terms; ``nll`` has the labels' only, and is the mean of both passes with R-Drop.

        Raises:
            ValueError: The teacher's vocabulary has another size.
        """
        batch, label_N = (input_ids, attention_mask, labels), labels[labels != IGNORED]
        taught: tuple[Tensor, ...] = ()
        if self.teacher is not None:
            with torch.no_grad():
                taught_NX, teacher_logits = _states(self.teacher, *batch, buckets)
            taught = (taught_NX,)
        if self.rdrop:
            # Each example is followed by its copy, so target-length buckets stay in order.
            batch = input_ids.repeat_interleave(2, 0), attention_mask.repeat_interleave(2, 0), labels
            batch = (*batch[:2], labels.repeat_interleave(2, 0))
            buckets = None if buckets is None else [(2 * count, longest) for count, longest in buckets]
        states_NX, student_logits = _states(model, *batch, buckets)
        passes: tuple[Tensor, ...] = (states_NX,)
        if self.rdrop:
            is_copy_N = (batch[2] != IGNORED).nonzero()[:, 0] % 2
            passes = states_NX[is_copy_N.argsort(stable=True)].chunk(2)

        def of_chunk(label_N: Tensor, *states: Tensor) -> tuple[Tensor, Tensor]:
            logits = [student_logits(states_NX) for states_NX in states[: len(passes)]]
            losses, nlls = zip(*(chunk_loss(logits_NV, label_N, label_smoothing) for logits_NV in logits), strict=True)
            summed = torch.stack(losses).mean()
            for taught_NX in states[len(passes) :]:
                with torch.no_grad():
                    taught_NV = teacher_logits(taught_NX)
                soft = torch.stack([divergence(logits_NV, taught_NV, self.temperature) for logits_NV in logits]).mean()
                summed = (1 - self.weight) * summed + self.weight * self.temperature**2 * soft
            if self.rdrop:
                summed = summed + self.rdrop * mutual_divergence(*logits)
            return summed, torch.stack(nlls).mean(dim=0)

        summed, nll_N = in_chunks(of_chunk, label_N, *passes, *taught)
        return TrainingLoss(summed, nll_N.sum(), (labels != IGNORED).sum())


def divergence(logits_NV: Tensor, teacher_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute KL(teacher || student), both at ``temperature``, summed over positions, in float32 or wider.

    Args:
        logits_NV: The student's logits (N, V); the result has a gradient for them.
        teacher_NV: The teacher's logits (N, V).
        temperature: Both logits are divided by it.

    Raises:
        ValueError: The vocabularies have different sizes.
    """
    if logits_NV.shape != teacher_NV.shape:
        raise ValueError(
            f"The teacher has logits for {teacher_NV.shape[-1]} tokens, the student for {logits_NV.shape[-1]}. Choose "
            "a teacher with the student's target vocabulary."
        )
    with torch.no_grad():
        teacher_NV, student_NV = (_log_probabilities(one, temperature) for one in (teacher_NV, logits_NV))
        probability_NV = teacher_NV.exp()
        # A token that the teacher masks adds nothing, also if its logit is minus infinity in both models.
        term_NV = teacher_NV.sub_(student_NV).mul_(probability_NV).masked_fill_(probability_NV == 0, 0)
        summed = term_NV.sum()
        gradient_NV = student_NV.exp_().sub_(probability_NV).div_(temperature)
    divergence: Tensor = _WithGradient.apply(logits_NV, summed, gradient_NV)
    return divergence


def mutual_divergence(first_NV: Tensor, second_NV: Tensor) -> Tensor:
    """Compute (KL(first || second) + KL(second || first)) / 2 from logits (N, V), summed over positions.

    The result is in float32 or wider, and has a gradient for both.
    """
    with torch.no_grad():
        logs = [_log_probabilities(logits_NV) for logits_NV in (first_NV, second_NV)]
        probabilities = [log_NV.exp() for log_NV in logs]
        difference_NV, is_equal_NV = probabilities[0] - probabilities[1], logs[0] == logs[1]
        ratio_NV = logs[0].sub_(logs[1]).masked_fill_(is_equal_NV, 0)  # also where both are minus infinity
        summed = (difference_NV * ratio_NV).sum() / 2
        gradients = []
        for probability_NV, sign in zip(probabilities, (1, -1), strict=True):
            mean_N1 = (probability_NV * ratio_NV).sum(dim=-1, keepdim=True)
            gradients.append((ratio_NV - mean_N1).mul_(probability_NV).add_(difference_NV).mul_(sign / 2))
    first: Tensor = _WithGradient.apply(first_NV, summed, gradients[0])
    second: Tensor = _WithGradient.apply(second_NV, torch.zeros_like(summed), gradients[1])
    return first + second


def _states(model: Any, *batch: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return a model's states at all label positions, and the function from states to logits."""
    output, head = lm_head(model)
    *ids, buckets = batch
    states_NX = torch.cat([group.states_NX for group in model.label_states(*ids, buckets=buckets)])
    return states_NX, output if head is Head.plain else lambda logits_NV: logits_NV


def _log_probabilities(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    wide_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return torch.log_softmax(wide_NV if temperature == 1 else wide_NV / temperature, dim=-1)


class _WithGradient(torch.autograd.Function):
    """Attaches a precomputed gradient to a value computed from logits.

    The gradient is stored in the dtype of the logits; for float16 in float32, as in ``loss.py``.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, value: Tensor, gradient_NV: Tensor) -> Tensor:
        ctx.dtype = logits_NV.dtype
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(gradient_NV if ctx.dtype == torch.float16 else gradient_NV.to(ctx.dtype))
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (gradient_NV,) = ctx.saved_tensors
        return (gradient_NV * grad).to(ctx.dtype), None, None
