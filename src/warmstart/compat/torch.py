"""Private APIs of torch, checked in 2.13.0 and 2.14.1."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import distributed_c10d

DISABLED_TORCH_FUNCTION: Any = torch._C._disabled_torch_function_impl
"""``__torch_function__`` of a tensor subclass that defines only ``__torch_dispatch__``, as recommended in torch's notes
on extending it. It has no public name."""

_PREPACKING = ("_reorder_linear_weight", "_linear_pointwise")


def wrapper_tensor(cls: type[Tensor], shape: tuple[int, ...], like: Tensor) -> Any:
    """Return a tensor of the subclass ``cls`` without memory, with the dtype and device of ``like``.

    Uses ``Tensor._make_wrapper_subclass``, as recommended in torch's notes on extending it.
    """
    return Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)


def version_of(tensor: Tensor) -> int:
    """Return a number that increases with every in-place change; 0 for an inference tensor, which has no such number.

    Reads ``Tensor._version``: no public API reports in-place changes.
    """
    return 0 if tensor.is_inference() else tensor._version


def softmax_gradient(grad: Tensor, probabilities: Tensor) -> Tensor:
    """Compute the gradient of the scores of a softmax over the last dimension.

    Uses ``torch._softmax_backward_data``, as autograd does: public operations would round differently.

    Args:
        grad: Gradient of the probabilities.
        probabilities: Result of the softmax, of the same shape.
    """
    return torch._softmax_backward_data(grad, probabilities, -1, probabilities.dtype)


def safe_softmax(scores: Tensor) -> Tensor:
    """Compute the softmax over the last dimension, with zeros where all scores are minus infinity.

    Uses ``torch._safe_softmax``, as torch's attention does: ``torch.softmax`` returns NaN in this case.
    """
    return torch._safe_softmax(scores, dim=-1)


def can_prepack() -> bool:
    """Return whether torch has oneDNN's prepacked products (``torch.ops.mkldnn``)."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _PREPACKING)


def prepack(weight_CK: Tensor, rows: int) -> Tensor:
    """Convert a weight (C, K) to oneDNN's layout for products with ``rows`` rows.

    Uses ``torch.ops.mkldnn._reorder_linear_weight``: eager torch has no public API for it.
    """
    prepacked: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_CK, rows)
    return prepacked


def prepacked_linear(input: Tensor, prepacked: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``F.linear`` of (..., K) with a weight from ``prepack``.

    Uses ``torch.ops.mkldnn._linear_pointwise``, which takes this layout.
    """
    result: Tensor = torch.ops.mkldnn._linear_pointwise(input, prepacked, bias, "none", [], "")
    return result


def compiled_call(module: nn.Module) -> Callable[..., Any] | None:
    """Return the compiled function of ``module.compile()``; None for a module that is not compiled.

    Reads ``Module._compiled_call_impl``: no public API tells whether a module is compiled or undoes it, and
    ``torch.compiler.set_stance`` applies to all modules of the process.
    """
    return module._compiled_call_impl


def set_compiled_call(module: nn.Module, compiled: Callable[..., Any] | None) -> None:
    """Set the compiled function of ``module``; None runs its ``forward``. See ``compiled_call``."""
    module._compiled_call_impl = compiled


def default_store() -> Any:
    """Return the store of the default process group.

    Uses ``distributed_c10d._get_default_store``: the public API creates new stores, but does not return this one.
    """
    return distributed_c10d._get_default_store()
