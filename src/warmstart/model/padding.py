"""Padding of the source and of the target, by position and never by guess.

Shapes: B batch, S source length, T target length.

BERT, ELECTRA, DistilBERT, ALBERT, MPNet and GPT-2 number positions from the first column, so a left-padded source gets
wrong positions. Rotating each row until its padding is on the right makes every encoder right, whatever its positions.
"""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

_log = logging.getLogger(__name__)


def shift_right(labels_BT: Tensor, pad_token_id: int, decoder_start_token_id: int) -> Tensor:
    """Decoder inputs for ``labels``: the start token, then each label but the last; -100 becomes pad."""
    shifted = labels_BT.new_full(labels_BT.shape, decoder_start_token_id)
    shifted[:, 1:] = labels_BT[:, :-1]
    return shifted.masked_fill(shifted == -100, pad_token_id)


def mask_of_shifted(labels_BT: Tensor) -> Tensor:
    """Attention mask of :func:`shift_right`'s result, from the labels' length.

    The start token is always visible (also where start = pad), an end token inside the target too (also where end =
    pad): ids are never compared.
    """
    mask = torch.ones_like(labels_BT)
    mask[:, 1:] = (labels_BT[:, :-1] != -100).to(mask.dtype)
    return mask


# These number positions behind the pad id and count the ids that differ from it. Table rows up to it are never used.
POSITIONS_BEHIND_PAD = {
    *("roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "data2vec-text"),
    *("xlm-roberta-xl", "roberta-prelayernorm", "xmod"),
}


def decoder_positions(
    config: Any, ids_BT: Tensor, mask_BT: Tensor | None = None, past: Any = None
) -> dict[str, Tensor]:
    """Positions from the mask for a decoder that would read them off the ids (RoBERTa) although start or end is pad.

    Such a token is then one like any other, in training as in generation with a cache. Nothing for other decoders.
    """
    if config.decoder.model_type not in POSITIONS_BEHIND_PAD:
        return {}
    pad, ends = config.decoder.pad_token_id, config.eos_token_id
    tokens = {config.decoder_start_token_id, *(ends if isinstance(ends, list) else [ends])}
    if pad is None or pad not in tokens:
        return {}
    mask_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT
    seen = 0 if past is None else past.get_seq_length()
    return {"position_ids": (mask_BT.cumsum(1) + seen) * mask_BT + pad}


def infer_source_mask(input_ids_BS: Tensor, encoder_config: Any) -> Tensor | None:
    """The mask that the ids show, or None where nothing is padded or the pad id also means something else."""
    pad = getattr(encoder_config, "pad_token_id", None)
    others = {getattr(encoder_config, name, None) for name in ("bos_token_id", "eos_token_id", "sep_token_id")}
    if not isinstance(pad, int) or pad in others:
        return None
    mask = (input_ids_BS != pad).long()
    return None if _can_read() and bool(mask.all()) else mask


def _can_read() -> bool:
    """Whether a value may decide what is computed: a graph that is being recorded has to hold for any values."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())


# Their states depend on what stands under the padding, or on how much of it there is (transformers 5.23 and 5.24).
READS_PADDING = {
    "fnet": "its Fourier transform mixes all positions",
    "nystromformer": "its landmarks are means over all positions",
    "yoso": "its hashes take in all positions",
    "mobilebert": "its embeddings take in the next position",
    "convbert": "its convolutions take in the next positions",
    "funnel": "its pooling takes in the next positions",
}


@cache
def _warn_of_padding(kind: str) -> None:
    _log.warning(
        "A batch is padded, and the states of a %s encoder change with the padding: %s. Give it sources of one length, "
        "or one source at a time (data.batch.size=1).",
        kind,
        READS_PADDING[kind],
    )


def left_padding(attention_mask: Tensor | None) -> Tensor | None:
    """Leading masked columns of each row (B,), or None where no row has any. Reads one value back from the device."""
    if attention_mask is None or attention_mask.dim() != 2:
        return None
    if _can_read() and not bool((attention_mask[:, 0] == 0).any()):
        return None
    return (attention_mask != 0).to(torch.int8).argmax(dim=1)


def encode_right_padded(encoder: Any, inputs: dict[str, Any], attention_mask: Tensor | None) -> Any:
    """Run ``encoder`` on ``inputs``; left-padded rows are rotated to the right of their padding, their results back."""
    kind = encoder.config.model_type
    if kind in READS_PADDING and attention_mask is not None and _can_read() and not bool(attention_mask.all()):
        _warn_of_padding(kind)
    offset_B = None if "position_ids" in inputs else left_padding(attention_mask)
    if offset_B is None or attention_mask is None:
        return encoder(**inputs, return_dict=True)
    size = attention_mask.shape
    rotated = {
        name: rotate(value, offset_B) if isinstance(value, Tensor) and value.shape[:2] == size else value
        for name, value in inputs.items()
    }
    encoded = encoder(**rotated, return_dict=True)

    def back(values: Any, *dims: int) -> Any:
        for dim in dims:
            values = None if values is None else tuple(rotate(value, -offset_B, dim) for value in values)
        return values

    return BaseModelOutput(
        last_hidden_state=rotate(encoded[0], -offset_B),
        hidden_states=back(encoded.get("hidden_states"), 1),
        attentions=back(encoded.get("attentions"), 2, 3),
    )


def global_first_token(inputs: dict[str, Any]) -> Tensor:
    """Global attention (B, S) of Longformer and LED on each row's first token: without any, none of it ever trains."""
    source = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
    mask = inputs.get("attention_mask")
    seen = torch.ones(source.shape[:2], dtype=torch.long, device=source.device) if mask is None else (mask != 0).long()
    return torch.zeros_like(seen).scatter_(1, seen.argmax(dim=1, keepdim=True), 1)


def rotate(tensor: Tensor, offset_B: Tensor, dim: int = 1) -> Tensor:
    """Move each row ``offset`` steps to the left along ``dim``, wrapping around; negative offsets undo it."""
    size = tensor.shape[dim]
    index = (torch.arange(size, device=tensor.device) + offset_B[:, None]) % size
    shape = [1] * tensor.dim()
    shape[0], shape[dim] = tensor.shape[0], size
    return tensor.gather(dim, index.view(shape).expand_as(tensor))


def mask_of_batch(mask: Tensor | None, *given: Tensor | None) -> Tensor | None:
    """A source mask of one row is for all sources; how many they are say ids, embeddings or states, what there is."""
    source = next((one for one in given if one is not None), None)
    if mask is None or source is None or mask.shape[0] != 1 or mask.dim() != 2:
        return mask
    return mask.expand(source.shape[0], -1)  # len() would fix the size in a recorded graph
