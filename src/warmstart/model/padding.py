"""Padding, masks and positions of source and target.

BERT, ELECTRA, DistilBERT, ALBERT, MPNet and GPT-2 number positions from the first column, so left-padded sources would
get wrong positions. Left-padded sources are therefore rotated until their padding is on the right.

Shapes: B batch, S source length, T target length.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

_log = logging.getLogger(__name__)


def shift_right(
    labels_BT: Tensor, pad_token_id: int, decoder_start_token_id: int, prompt_ids: Sequence[int] | None = None
) -> Tensor:
    """Make decoder inputs (B, P + T): the start token, P prompt ids, then all labels except the last.

    -100 becomes the pad id.
    """
    shifted = labels_BT.new_full(labels_BT.shape, decoder_start_token_id)
    shifted[:, 1:] = labels_BT[:, :-1]
    shifted = shifted.masked_fill(shifted == -100, pad_token_id)
    if not prompt_ids:
        return shifted
    prompt_BP = torch.tensor(prompt_ids, device=labels_BT.device).expand(len(labels_BT), -1)
    return torch.cat([shifted[:, :1], prompt_BP, shifted[:, 1:]], dim=1)


def mask_of_shifted(labels_BT: Tensor, prompt_ids: Sequence[int] | None = None) -> Tensor:
    """Make the attention mask (B, P + T) of ``shift_right``'s result from the labels' length.

    Ids are not compared, so start and end tokens are visible even if they equal the pad token.
    """
    mask = torch.ones_like(labels_BT)
    mask[:, 1:] = (labels_BT[:, :-1] != -100).to(mask.dtype)
    return torch.nn.functional.pad(mask, (len(prompt_ids), 0), value=1) if prompt_ids else mask


def after_prompt(labels_BT: Tensor, length: int, prompt_ids: Sequence[int] | None) -> Tensor:
    """Return labels (B, P + T) that are -100 at the P prompt ids, if ``length``, that of the logits, is P + T."""
    if not prompt_ids or length - labels_BT.shape[1] != len(prompt_ids):
        return labels_BT
    return torch.nn.functional.pad(labels_BT, (len(prompt_ids), 0), value=-100)


# Types whose first position is the pad id + 1, and that count only the ids that differ from the pad id.
POSITIONS_AFTER_PAD = {
    *("roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "data2vec-text"),
    *("xlm-roberta-xl", "roberta-prelayernorm", "xmod"),
}


def inputs_of_labels(config: Any, ids_BT: Tensor, labels_BT: Tensor) -> dict[str, Tensor]:
    """Return the decoder's arguments for training on labels (B, T), given the result of ``shift_right``."""
    mask_BT = mask_of_shifted(labels_BT, config.prompt_ids)
    return {"input_ids": ids_BT, "attention_mask": mask_BT, **decoder_positions(config, ids_BT, mask_BT)}


def decoder_positions(
    config: Any, ids_BT: Tensor, mask_BT: Tensor | None = None, past: Any = None
) -> dict[str, Tensor]:
    """Compute ``position_ids`` (B, T) from the mask for a decoder that would ignore its start or end token.

    This is a decoder of ``POSITIONS_AFTER_PAD`` whose start or end id is also its pad id. The result is empty for other
    decoders.

    Args:
        config: The joint config.
        ids_BT: Decoder input ids (B, T).
        mask_BT: Attention mask (B, T), or that of the previous positions, too; None: no padding. A mask of other shapes
            is not read.
        past: KV cache of the previous positions.
    """
    if config.decoder.model_type not in POSITIONS_AFTER_PAD:
        return {}
    pad, ends = config.decoder.pad_token_id, config.eos_token_id
    tokens = {config.decoder_start_token_id, *(ends if isinstance(ends, list) else [ends])}
    if pad is None or pad not in tokens or (mask_BT is not None and mask_BT.dim() != 2):
        return {}
    mask_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT.long()
    seen = 0 if past is None or mask_BT.shape[1] > ids_BT.shape[1] else past.get_seq_length()
    return {"position_ids": positions_after_pad(mask_BT, pad, seen)[:, -ids_BT.shape[1] :]}


def positions_after_pad(mask_BT: Tensor, pad: int, seen: int = 0) -> Tensor:
    """Compute the positions (B, T) of a type in ``POSITIONS_AFTER_PAD``, of which ``pad`` is that of padding.

    Args:
        mask_BT: Attention mask (B, T), 0 at padding.
        pad: The pad id of the submodel.
        seen: Number of earlier positions.
    """
    return (mask_BT.cumsum(1) + seen) * mask_BT + pad


def infer_source_mask(input_ids_BS: Tensor, encoder_config: Any) -> Tensor | None:
    """Infer the mask (B, S) from pad ids; None without padding, or if the pad id is also another special id."""
    pad = getattr(encoder_config, "pad_token_id", None)
    others = {getattr(encoder_config, name, None) for name in ("bos_token_id", "eos_token_id", "sep_token_id")}
    if not isinstance(pad, int) or pad in others:
        return None
    mask = (input_ids_BS != pad).long()
    return None if _can_branch() and bool(mask.all()) else mask


def _can_branch() -> bool:
    """Return whether code may depend on tensor values: not while a graph is being recorded."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())


# Types whose states depend on the padding, in spite of the mask (transformers 5.23 and 5.24).
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
        "A batch is padded, and the states of a %s encoder depend on the padding: %s. Use sources of equal length, or "
        "one source at a time (data.batch.size=1 data.evaluation_max_tokens=1).",
        kind,
        READS_PADDING[kind],
    )


def left_padding(attention_mask: Tensor | None) -> Tensor | None:
    """Count the leading masked positions of each source (B,); None if there are none. Waits for the device."""
    if attention_mask is None or attention_mask.dim() != 2:
        return None
    if _can_branch() and not bool((attention_mask[:, 0] == 0).any()):
        return None
    return (attention_mask != 0).to(torch.int8).argmax(dim=1)


def encode_right_padded(encoder: Any, inputs: dict[str, Any], attention_mask: Tensor | None) -> Any:
    """Run the encoder with right-padded sources: left-padded ones are rotated, and their results rotated back.

    Args:
        encoder: The encoder.
        inputs: Its keyword arguments.
        attention_mask: Mask (B, S), 0 at padding; None: no padding.
    """
    kind = encoder.config.model_type
    if kind in READS_PADDING and attention_mask is not None and _can_branch() and not bool(attention_mask.all()):
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


def rotate(tensor: Tensor, offset_B: Tensor, dim: int = 1) -> Tensor:
    """Rotate each example by its offset (B,) to the left along ``dim``; negative offsets undo it."""
    size = tensor.shape[dim]
    index = (torch.arange(size, device=tensor.device) + offset_B[:, None]) % size
    shape = [1] * tensor.dim()
    shape[0], shape[dim] = tensor.shape[0], size
    return tensor.gather(dim, index.view(shape).expand_as(tensor))


def mask_of_batch(mask: Tensor | None, *given: Tensor | None) -> Tensor | None:
    """Expand a source mask (1, S) to all sources (B, S).

    Args:
        mask: The mask; (B, S) or None is returned unchanged.
        *given: Source ids, embeddings or states; the first that is not None has the batch size B.
    """
    source = next((one for one in given if one is not None), None)
    if mask is None or source is None or mask.shape[0] != 1 or mask.dim() != 2:
        return mask
    return mask.expand(source.shape[0], -1)  # len() would fix the size in a recorded graph
