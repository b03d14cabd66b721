"""Private parts of torch, read in 2.13.0."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import distributed_c10d

DISABLED_TORCH_FUNCTION: Any = torch._C._disabled_torch_function_impl
"""``__torch_function__`` of a tensor subclass that has only ``__torch_dispatch__``, as torch's notes on extending it
advise; it has no public name."""

_PREPACKING = ("_reorder_linear_weight", "_linear_pointwise")


def wrapper_tensor(cls: type[Tensor], shape: tuple[int, ...], like: Tensor) -> Any:
    """Return a tensor of the subclass ``cls`` that has a shape, and the dtype and device of ``like``, but no memory.

    ``Tensor._make_wrapper_subclass``: torch's notes on extending it name no other.
    """
    return Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)


def version_of(tensor: Tensor) -> int:
    """Return a number that grows with each change in place; 0 for a tensor of inference mode, which has none.

    ``Tensor._version``: nothing public tells of a change in place.
    """
    return 0 if tensor.is_inference() else tensor._version


def softmax_gradient(grad: Tensor, probabilities: Tensor) -> Tensor:
    """Return the gradient of the scores, of a softmax over the last dimension.

    ``torch._softmax_backward_data``, as autograd calls it: written out it is four operations with other roundings.
    """
    return torch._softmax_backward_data(grad, probabilities, -1, probabilities.dtype)


def safe_softmax(scores: Tensor) -> Tensor:
    """Compute the softmax over the last dimension: zeros where all scores are minus infinity.

    ``torch._safe_softmax``, as torch's own attention calls it: ``torch.softmax`` gives NaN there.
    """
    return torch._safe_softmax(scores, dim=-1)


def can_prepack() -> bool:
    """Return whether this torch has oneDNN's prepacked products, which torch.compile's freezing uses."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _PREPACKING)


def prepack(weight_CK: Tensor, rows: int) -> Tensor:
    """Return a weight (C, K) in oneDNN's own layout for products with ``rows`` rows.

    ``torch.ops.mkldnn._reorder_linear_weight``: eager torch has no public call that keeps the layout.
    """
    prepacked: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_CK, rows)
    return prepacked


def prepacked_linear(input: Tensor, prepacked: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``F.linear`` with a weight from :func:`prepack` (``torch.ops.mkldnn._linear_pointwise``)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(input, prepacked, bias, "none", [], "")
    return result


def compiled_call(module: nn.Module) -> Callable[..., Any] | None:
    """Return what ``module.compile()`` has made; None for a module that is not compiled.

    ``Module._compiled_call_impl``: ``compile`` has no public counterpart that undoes it or tells of it, and
    ``torch.compiler.set_stance`` holds for every module of the process.
    """
    return module._compiled_call_impl


def set_compiled_call(module: nn.Module, compiled: Callable[..., Any] | None) -> None:
    """Let calls of ``module`` go to ``compiled``, or to its ``forward`` if None; see :func:`compiled_call`."""
    module._compiled_call_impl = compiled


def default_store() -> Any:
    """Return the store of the default process group.

    ``distributed_c10d._get_default_store``: public calls make a new store, but give no access to this one.
    """
    return distributed_c10d._get_default_store()
