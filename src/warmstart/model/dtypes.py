"""Cast a model to another floating-point dtype, except for the tensors that transformers keeps in float32.

    with computing_in(model, torch.bfloat16):
        model.generate(...)

``model.to(torch.bfloat16)`` would round the frequencies of rotary positions by up to 0.4 %, and at position 1,000 some
channels of a head would be rotated by a radian too much. It would also round the routers of experts, so that tokens go
to other experts, and the decay of linear attention: logits of kimi_linear differ by a third. transformers keeps these
in float32 when it loads a model in 16 bits, and this module does the same.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_TABLES = ("inv_freq", "rotary_emb.embed_positions", "pos_encoding")  # in names of buffers: computed in float32
# How a class of transformers names what it keeps in float32. There is no public name for them.
_KEPT_IN_16_BITS, _KEPT_IN_FLOAT16 = "_keep_in_fp32_modules_strict", "_keep_in_fp32_modules"
# By model type: what it creates in float32 whatever the dtype of the model, without naming it so
_CREATED = {"hunyuan_v1_moe": "gate.wg", "olmo_hybrid": "A_log", "zamba": "A_log", "zaya": "gate.balancing_biases"}


def to_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the floating-point parameters and buffers of ``module``, in place, except for those kept in float32."""
    for tensor in _cast(module, dtype):
        tensor.data = tensor.data.to(dtype)


@contextmanager
def computing_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Cast ``model`` to ``dtype`` within the context; the original values are kept in memory and restored after it."""
    own = [(tensor, tensor.data) for tensor in _cast(model, dtype) if tensor.dtype != dtype]
    try:
        to_dtype(model, dtype)
        yield
    finally:
        for tensor, data in own:
            tensor.data = data


def _cast(module: nn.Module, dtype: torch.dtype) -> list[Tensor]:
    buffers = (buffer for name, buffer in module.named_buffers() if not any(table in name for table in _TABLES))
    kept = _kept_in_float32(module, dtype)
    tensors = chain(module.parameters(), buffers)
    return [tensor for tensor in tensors if tensor.is_floating_point() and id(tensor) not in kept]


def _kept_in_float32(module: nn.Module, dtype: torch.dtype) -> set[int]:
    """Return the ids of the tensors that classes of transformers name: by a part of the name, with * as wildcard."""
    if dtype not in (torch.float16, torch.bfloat16):
        return set()
    attributes = (_KEPT_IN_16_BITS, *([_KEPT_IN_FLOAT16] if dtype == torch.float16 else []))
    kept = set()
    for submodel in module.modules():
        if not isinstance(submodel, PreTrainedModel):
            continue
        parts = [part for name in attributes for part in getattr(submodel, name, None) or ()]
        parts += [_CREATED[kind]] if (kind := submodel.config.model_type) in _CREATED else []
        if parts:
            matching = re.compile("|".join(part.replace("*", ".*") for part in parts))
            named = chain(submodel.named_parameters(), submodel.named_buffers())
            kept |= {id(tensor) for name, tensor in named if matching.search(name)}
    return kept
