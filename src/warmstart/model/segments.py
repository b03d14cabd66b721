"""Segment ids of sources whose sentences are marked: 0 and 1 in turn, as in BertSum (Liu & Lapata 2019).

The encoder's config holds ``sentence_start_id``, the id before each sentence. Segments are computed from the source
ids, so that training, generation and exports use the same ones.

Shapes: B batch, S source length.
"""

import inspect
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig

START = "sentence_start_id"


def segment_ids(ids_BS: Tensor, start: int) -> Tensor:
    """Return the segment of each token (B, S): 0 in the first sentence, 1 in the second, 0 in the third, and so on.

    Args:
        ids_BS: Source ids.
        start: The id before each sentence.
    """
    return ((ids_BS == start).cumsum(dim=-1) - 1).clamp(min=0) % 2


def mark_sentences(config: PreTrainedConfig, start: int | None) -> None:
    """Write the id before each sentence into an encoder's config, in place; None writes nothing."""
    if start is not None:
        config.sentence_start_id = start


def segments_of_source(encoder: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Return ``token_type_ids`` for a call of the encoder; empty if it has no segments or the source no marks.

    Args:
        encoder: The encoder.
        inputs: Its keyword arguments.
    """
    start, ids = getattr(encoder.config, START, None), inputs.get("input_ids")
    if start is None or ids is None or "token_type_ids" in inputs:
        return {}
    has_segments = (getattr(encoder.config, "type_vocab_size", None) or 0) > 1
    if not has_segments or "token_type_ids" not in inspect.signature(encoder.forward).parameters:
        return {}
    return {"token_type_ids": segment_ids(ids, start)}
