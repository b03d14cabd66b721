"""What the model read of a text: where it stopped, and which source words it attended to for each word of a summary.

The weight of a source word is the cross-attention to its tokens, averaged over all layers and heads. Special tokens are
left out, and the weights of the other words sum to 1.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from warmstart.compat.transformers import attention_of, set_attention
from warmstart.config.model import NO_ENCODER
from warmstart.model.bridge.cross_attention import CrossAttention
from warmstart.model.submodel_config import maximum_positions

# Chinese characters and kana, which are not separated by blanks; words with apostrophes and hyphens; other signs.
_WORD = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\\w+(?:['\u2019-]\\w+)*|[^\\w\\s]")
_TOKENS_OF_CHARACTER = 4  # at most: the bytes of UTF-8
_STRONGEST = 12  # source words of each summary word
_WEAKEST = 0.02  # a smaller weight is not shown

Span = tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """The tokens that the model reads of a text."""

    tokens: int
    is_cut: bool
    """Whether the text has more tokens than the model reads."""
    offsets: list[Span] | None
    """Start and end of each token in the text, (0, 0) for special tokens; None if the tokenizer does not know them."""

    @property
    def end(self) -> int | None:
        """Position in the text at which the model stopped; None if it read all, or if the position is not known."""
        return max((end for _, end in self.offsets), default=0) if self.is_cut and self.offsets is not None else None


def reading_of(tokenizers: Any, text: str, max_length: int) -> Reading:
    """Find out what the model reads of a cleaned text.

    Args:
        tokenizers: The ``TokenizerPair``.
        text: The text.
        max_length: Number of source tokens that the model reads.
    """
    (ids,) = tokenizers.encode_sources([text], max_length)
    offsets = _offsets(tokenizers.source, text, ids, truncation=True, max_length=max_length)
    is_cut = len(ids) >= max_length
    if is_cut and offsets is not None:
        is_cut = bool(text[max((end for _, end in offsets), default=0) :].strip())
    return Reading(len(ids), is_cut, offsets)


def words_read(
    model: Any, tokenizers: Any, text: str, summary: str, reading: Reading
) -> list[list[tuple[int, float]]] | None:
    """Find the source words that the model attends to for each word of a summary.

    The summary is tokenized again and given to the decoder, so that weights are those of the words as they are shown.

    Args:
        model: The joint model.
        tokenizers: Its ``TokenizerPair``.
        text: The cleaned text.
        summary: The summary.
        reading: What the model reads of the text.

    Returns:
        For each word of ``word_spans(summary)`` the indices of words in ``word_spans(text)`` and their weights, the
        largest first. None if a tokenizer or the decoder does not tell.
    """
    if not summary.strip():
        return []
    if reading.offsets is None or model.config.encoder.model_type == NO_ENCODER:
        return None
    (source,) = tokenizers.encode_sources([text], reading.tokens)
    (labels,) = tokenizers.encode_targets([summary], _TOKENS_OF_CHARACTER * len(summary) + 2)
    offsets = _offsets(tokenizers.target, summary, labels[:-1], add_special_tokens=False)
    if offsets is None:
        return None
    begins = [model.config.decoder_start_token_id, *(model.config.prompt_ids or [])]
    decoder_ids = [*begins, *labels[:-1]]
    if len(decoder_ids) > (maximum_positions(model.config.decoder) or len(decoder_ids)):
        return None
    ids = torch.tensor([source], device=model.device), torch.tensor([decoder_ids], device=model.device)
    weights_TS = cross_attention(model, *ids)
    if weights_TS is None or weights_TS.shape != (len(decoder_ids), len(source)):
        return None
    words, own = word_spans(text[: reading.end]), word_spans(summary)
    of_source = [_word_at(span, words) for span in reading.offsets]
    by_word = torch.zeros(len(decoder_ids), len(words))
    known = [i for i, word in enumerate(of_source) if word is not None]
    by_word.index_add_(1, torch.tensor([of_source[i] for i in known], dtype=torch.long), weights_TS[:, known])
    found: list[Any] = [[] for _ in own]
    # The last of the start and prompt tokens predicts the first token.
    for row, span in enumerate(offsets, len(begins) - 1):
        if (word := _word_at(span, own)) is not None:
            found[word].append(by_word[row])
    return [_strongest(torch.stack(rows).mean(0)) if rows else [] for rows in found]


@torch.inference_mode()
def cross_attention(model: Any, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor | None:
    """Compute the cross-attention weights (T, S) of one text, averaged over layers and heads.

    Args:
        model: The joint model.
        input_ids: (1, S) source ids without padding.
        decoder_input_ids: (1, T) target ids with the start token.

    Returns:
        The weights in float32 on the CPU, or None if the decoder returns none.
    """
    found: list[Tensor] = []
    grafted = [module for module in model.modules() if isinstance(module, CrossAttention)]
    hooks = [module.register_forward_hook(partial(_keep_weights, found)) for module in grafted]
    inputs = {"attention_mask": torch.ones_like(input_ids), "decoder_input_ids": decoder_input_ids, "use_cache": False}
    try:
        encoded = model(input_ids=input_ids, **inputs).encoder_last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    if not grafted:
        with _eager(model.config.encoder, model.config.decoder):
            outputs = model(encoder_outputs=(encoded,), output_attentions=True, **inputs)
        found = [weights for weights in outputs.cross_attentions or () if weights is not None]
    return torch.stack([weights.float().mean(1)[0] for weights in found]).mean(0).cpu() if found else None


def word_spans(text: str) -> list[Span]:
    """Return start and end of each word and sign of a text."""
    return [found.span() for found in _WORD.finditer(text)]


def _keep_weights(found: list[Tensor], module: Any, args: Sequence[Any], output: Any) -> None:
    """Compute the weights (1, N, T, S) of a grafted layer, which does not return them; a forward hook."""
    hidden_RTH, states_BSE = args[:2]
    shape = module.shape
    queries = module.q_proj(module.norm(hidden_RTH)).view(1, -1, shape.heads, shape.head_width)
    if shape.normed_heads:
        queries = module.q_norm(queries)
    keys_BGSD, _ = module.keys_and_values(states_BSE)
    keys_BNSD = keys_BGSD.repeat_interleave(shape.heads // shape.key_heads, dim=1)
    found.append((queries.transpose(1, 2) @ keys_BNSD.transpose(2, 3) / shape.head_width**0.5).softmax(-1))


@contextmanager
def _eager(*configs: Any) -> Iterator[None]:
    """Let models return attention weights, which only the eager implementation does."""
    before = [attention_of(config) for config in configs]
    try:
        for config in configs:
            set_attention(config, "eager")
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            set_attention(config, name)


def _offsets(tokenizer: Any, text: str, ids: list[int], **options: Any) -> list[Span] | None:
    """Return the span of each token, or None if the tokenizer cannot tell them for these ids."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    found = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True, **options)
    return list(found["offset_mapping"]) if found["input_ids"] == ids else None


def _word_at(token: Span, spans: list[Span]) -> int | None:
    """Return the word that contains the last character of a token; it may begin with the blank before the word."""
    start, end = token
    low, high = 0, len(spans)
    while low < high:  # the first word that ends at or after the token
        middle = (low + high) // 2
        low, high = (middle + 1, high) if spans[middle][1] < end else (low, middle)
    return low if start < end and low < len(spans) and spans[low][0] < end else None


def _strongest(weights: Tensor) -> list[tuple[int, float]]:
    weights = weights / weights.sum().clamp_min(1e-9)
    values, indices = weights.topk(min(_STRONGEST, len(weights)))
    pairs = zip(indices.tolist(), values.tolist(), strict=True)
    return [(i, value) for i, value in pairs if value >= _WEAKEST]
