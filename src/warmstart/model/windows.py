"""Encode the windows of a long source one by one, for a decoder that attends to the states of all of them.

This is Fusion-in-Decoder (Izacard & Grave 2021, arXiv 2007.01282). Positions start again in each window, so the decoder
does not know the order of the windows, except from their texts.

Shapes: B sources, W windows, S longest window, H hidden size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from warmstart.model.encoders import complete_inputs
from warmstart.model.padding import encode_right_padded


def encode_windows(encoder: Any, inputs: dict[str, Any], attention_mask: Tensor | None) -> Any:
    """Run the encoder; if the source ids are (B, W, S), on each window by itself.

    A window without any position, which a source shorter than others does not fill, is not encoded.

    Args:
        encoder: The encoder.
        inputs: Its keyword arguments; values may be None.
        attention_mask: Mask (B, S) or (B, W, S), 0 at padding; None: no padding.

    Returns:
        The encoder's output; for windows only ``last_hidden_state`` (B, W x S, H), zero in windows without a position.
    """
    ids = inputs["input_ids"]
    if ids is None or ids.dim() != 3:
        return encode_right_padded(encoder, complete_inputs(encoder, inputs), attention_mask)
    mask_NS = (torch.ones_like(ids) if attention_mask is None else attention_mask).flatten(0, 1)
    filled_N = (mask_NS != 0).any(dim=1).nonzero()[:, 0]
    of_windows = {
        name: value.flatten(0, 1)[filled_N] if isinstance(value, Tensor) and value.shape[:3] == ids.shape else value
        for name, value in (inputs | {"attention_mask": mask_NS.view_as(ids)}).items()
    }
    encoded = encode_right_padded(encoder, complete_inputs(encoder, of_windows), of_windows["attention_mask"])[0]
    states_NSH = encoded.new_zeros(len(mask_NS), *encoded.shape[1:]).index_copy(0, filled_N, encoded)
    return BaseModelOutput(last_hidden_state=states_NSH.view(len(ids), -1, encoded.shape[-1]))


def flat_mask(mask: Tensor | None) -> Tensor | None:
    """Return the mask (B, W x S) of the states of windows for their mask (B, W, S); others are returned unchanged."""
    return mask.flatten(1) if mask is not None and mask.dim() == 3 else mask
