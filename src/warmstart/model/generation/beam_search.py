"""Beam search in which a source that is decided costs nothing more: its beams leave the batch.

The candidates, scores and ends are those of transformers' beam search, which goes on computing every row until the last
one ends; a batch of summaries of 56 to 142 tokens then costs 142 for each. What is left out is what could no longer
change: a source whose beams are all finished, and that by length penalty or ``early_stopping`` cannot be bettered.
Searches that draw, that ask for more than ids, or whose processors know rows by their place go transformers' own way.

Shapes: B sources, K beams, C candidates for each source, R = B x K rows, L longest target, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer, EncoderDecoderCache
from transformers.generation import logits_process, stopping_criteria
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import BaseModelOutput

from warmstart import cpu
from warmstart.compat.transformers import library_search, next_model_kwargs, prefill, reorders_cache_itself
from warmstart.model.cache_names import cache_of
from warmstart.model.generation.logits_processors import NoEarlyEnd, NoRepeatedNGrams, in_place
from warmstart.model.generation.source_cache import SourceCache

NEVER = -1.0e9  # transformers' score of what must not be chosen: sums with it decide ties, so it has to be the same
_BY_ROW = (  # processors that see a row and nothing of its place in the batch
    NoRepeatedNGrams,
    NoEarlyEnd,
    logits_process.ForcedBOSTokenLogitsProcessor,
    logits_process.ForcedEOSTokenLogitsProcessor,
    logits_process.NoBadWordsLogitsProcessor,
    logits_process.SuppressTokensLogitsProcessor,
)
_ENDS = (stopping_criteria.MaxLengthCriteria, stopping_criteria.EosTokenCriteria)
_ROWS = ("attention_mask", "decoder_attention_mask", "token_type_ids", "position_ids", "decoder_position_ids")
_SEARCHES = (
    *(GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE),
    *(GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE),
)
_MORE_THAN_IDS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")

DropSources = Callable[[Tensor], None]
"""Told which sources (of those that are left) stay, so that what the decoder reads has a row for each."""


def can_drop(model: Any, config: GenerationConfig, processors: Any, ends: Any, model_kwargs: dict[str, Any]) -> bool:
    """Whether leaving sources out changes nothing for those that stay."""
    cache: Any = cache_of(model_kwargs)
    own = _of_target(cache)
    tensors = {name for name, value in model_kwargs.items() if isinstance(value, Tensor) and value.dim()}
    return (
        not config.do_sample
        and not (config.return_dict_in_generate or any(getattr(config, name) for name in _MORE_THAN_IDS))
        and all(type(one) in _BY_ROW for one in processors)
        and all(type(one) in _ENDS for one in ends)
        and config.prefill_chunk_size is None
        and not reorders_cache_itself(model)
        and type(own) is DynamicCache
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in own.layers)
        and (own is cache or isinstance(cache.cross_attention_cache, SourceCache))
        and tensors <= {*_ROWS}
    )


def _of_target(cache: Any) -> Any:
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


@dataclass
class _Beams:
    """What is known of each source's beams; every field has a row for each source."""

    place: Tensor  # (B,) of the source among all that were asked for
    ids: Tensor  # (B, K, L) of beams that go on
    scores: Tensor  # (B, K)
    done_ids: Tensor  # (B, K, L) of the best that ended
    done_scores: Tensor  # (B, K)
    done_lengths: Tensor  # (B, K) generated tokens
    done: Tensor  # (B, K) whether a beam has ended here
    open: Tensor  # (B, 1) whether a beam that goes on could still be better

    def of(self, kept: Tensor) -> "_Beams":
        return _Beams(*(getattr(self, field.name)[kept] for field in fields(self)))


@torch.no_grad()
def beam_search(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: Any,
    generation_config: GenerationConfig,
    drop_sources: DropSources | None = None,
    **model_kwargs: Any,
) -> Tensor:
    """Search for the best ``num_return_sequences`` of each source, as ``GenerationMixin._beam_search`` does.

    Args:
        model: what is called for logits, with transformers' generation protocol.
        input_ids: (R, T) the start of each sequence; R is sources times beams.
        logits_processor: what changes scores before the choice.
        stopping_criteria: what ends the search in addition to its own rule.
        generation_config: number of beams, length penalty, early stopping and special ids.
        drop_sources: drops decided sources, for a decoder that does not find its source in ``model_kwargs``.
        **model_kwargs: what ``model`` is called with: cache, masks, encoder states.

    Returns:
        (sources times ``num_return_sequences``, length) ids, padded on the right.
    """
    config, beams = generation_config, generation_config.num_beams
    early, penalty = config.early_stopping, config.length_penalty
    begun = length = input_ids.shape[1]
    ends = _ids(config.eos_token_id)
    candidates = max(2, 1 + len(ends)) * beams
    # As transformers fills it up: pad, and the end token where pad is 0 or not set.
    fill = (_ids(config.pad_token_id) or [0])[0] or ends[0] if ends else -1
    state = _begin(input_ids, beams, config.max_length, fill)
    results = _begin(input_ids, beams, config.max_length, fill)
    rows: Any = input_ids
    outputs = prefill(model, input_ids, config, model_kwargs)
    cpu.use_beam_cache(model, _of_target(cache_of(model_kwargs)))
    while True:
        model_kwargs = next_model_kwargs(model, outputs, model_kwargs)
        logits_RV = outputs.logits[:, -1, :].to(input_ids.device)
        del outputs
        scores_RV = logits_processor(rows, cpu.log_probabilities(logits_RV))
        sources, vocabulary = len(state.place), scores_RV.shape[-1]
        scores_BKV = scores_RV.view(sources, beams, vocabulary).add_(state.scores[:, :, None])
        exact = logits_RV.dtype == torch.float32
        scores_BC, chosen_BC = cpu.best_candidates(scores_BKV.flatten(1), candidates, ties_as_topk=exact)
        from_BC = chosen_BC // vocabulary
        ids_BCL = _take(state.ids, from_BC)
        ids_BCL[:, :, length] = chosen_BC % vocabulary
        ends_BC = stopping_criteria(ids_BCL[:, :, : length + 1].flatten(0, 1), None).view(sources, candidates)

        running_BC = scores_BC + ends_BC.float() * NEVER
        best_BK = running_BC.topk(beams)[1]
        _finish(state, ids_BCL, scores_BC, ends_BC, length + 1 - begun, penalty, early)
        state.ids, state.scores = _take(ids_BCL, best_BK), _take(running_BC, best_BK)
        moved_BK = _take(from_BC, best_BK)
        length += 1

        longest = config.max_length if early == "never" and penalty > 0 else length
        best_possible = state.scores[:, :1] / (longest - begun) ** penalty
        worst = torch.where(state.done, state.done_scores.min(dim=1, keepdim=True)[0], NEVER)
        state.open &= (best_possible > worst).any(dim=-1, keepdim=True)

        full = state.done.all(dim=-1)
        decided = full & (~state.open[:, 0] | (early is True))
        if ends_BC.all() or not state.open.any() or (early is True and full.all()) or decided.all():
            break
        stays = (~decided).nonzero()[:, 0]
        row_of = torch.arange(sources, device=stays.device)[:, None] * beams + moved_BK
        if len(stays) < sources:
            _keep(results, state)
            state, row_of = state.of(stays), row_of[stays]
            _drop(model_kwargs, stays, sources, beams)
            if drop_sources is not None:
                drop_sources(stays)
        cache_of(model_kwargs).reorder_cache(row_of.flatten())
        rows = state.ids[:, :, :length].flatten(0, 1)
        inputs = model.prepare_inputs_for_generation(rows, next_sequence_length=1, **model_kwargs)
        outputs = model(**inputs, return_dict=True)

    _keep(results, state)
    returned = config.num_return_sequences
    longest = int(results.done_lengths[:, :returned].max())
    return results.done_ids[:, :returned, : begun + longest].flatten(0, 1)


def _ids(given: Any) -> list[int]:
    """Return the ids of an option of ``generate`` that holds one, several or none."""
    return [] if given is None else torch.as_tensor(given).flatten().tolist()


def _begin(input_ids: Tensor, beams: int, max_length: int, fill: Any) -> _Beams:
    device = input_ids.device
    ids_BKT = input_ids.view(-1, beams, input_ids.shape[1])
    sources = len(ids_BKT)
    ids_BKL = ids_BKT.new_full((sources, beams, max_length), int(fill))
    ids_BKL[:, :, : input_ids.shape[1]] = ids_BKT
    scores = torch.zeros(sources, beams, device=device)
    scores[:, 1:] = NEVER  # all beams begin alike: the first one's continuations are candidates, once
    return _Beams(
        place=torch.arange(sources, device=device),
        ids=ids_BKL,
        scores=scores,
        done_ids=ids_BKL.clone(),
        done_scores=torch.full((sources, beams), NEVER, device=device),
        done_lengths=torch.zeros(sources, beams, dtype=torch.long, device=device),
        done=torch.zeros(sources, beams, dtype=torch.bool, device=device),
        open=torch.ones(sources, 1, dtype=torch.bool, device=device),
    )


def _finish(
    state: _Beams, ids_BCL: Tensor, scores_BC: Tensor, ends_BC: Tensor, generated: int, penalty: float, early: Any
) -> None:
    """Put candidates that ended among the best, if they were within the beam, and the source can be bettered."""
    beams = state.done.shape[1]
    ends_BC = ends_BC & (torch.arange(ends_BC.shape[1], device=ends_BC.device) < beams)
    scores_BC = scores_BC / generated**penalty
    full = state.done.all(dim=-1, keepdim=True) & (early is True)
    for barred in (full, ~state.open, ~ends_BC):
        scores_BC = scores_BC + barred.float() * NEVER
    merged = torch.cat([state.done_scores, scores_BC], dim=1)
    best = merged.topk(beams)[1]
    state.done_scores = _take(merged, best)
    state.done_ids = _take(torch.cat([state.done_ids, ids_BCL], dim=1), best)
    lengths = torch.full_like(ends_BC, generated, dtype=torch.long)
    state.done_lengths = _take(torch.cat([state.done_lengths, lengths], dim=1), best)
    state.done = _take(torch.cat([state.done, ends_BC], dim=1), best)


def _take(values: Tensor, indices: Tensor) -> Tensor:
    """``values`` (B, X, ...) at ``indices`` (B, Y)."""
    return values.take_along_dim(indices.view(*indices.shape, *[1] * (values.dim() - 2)), dim=1)


def _keep(results: _Beams, state: _Beams) -> None:
    results.done_ids[state.place] = state.done_ids
    results.done_lengths[state.place] = state.done_lengths


def _drop(model_kwargs: dict[str, Any], stays: Tensor, sources: int, beams: int) -> None:
    """Leave the other sources out of all that is passed on, but for the target's cache, which is reordered anyway."""
    rows = (stays[:, None] * beams + torch.arange(beams, device=stays.device)).flatten()
    for name in _ROWS:
        if model_kwargs.get(name) is not None:
            model_kwargs[name] = model_kwargs[name][rows]
    encoded = model_kwargs.get("encoder_outputs")
    if encoded is not None:
        model_kwargs["encoder_outputs"] = BaseModelOutput(encoded[0][stays])
    cache = cache_of(model_kwargs)
    if isinstance(cache, EncoderDecoderCache):
        cache.cross_attention_cache.batch_select_indices(stays)


def decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: Any,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    drop_sources: DropSources | None = None,
    **model_kwargs: Any,
) -> Any:
    """One search of ``generate``: beams as above where that is sound, else as transformers does it.

    Raises:
        ValueError: the options ask for another search than greedy, beams or either with draws.
    """
    mode = generation_config.get_generation_mode()
    if mode not in _SEARCHES:
        raise ValueError(f"A pair does not generate by {mode.value}. Take that option out of the generation config.")
    # Raw logits that are to be returned must not be changed.
    processors = logits_processor if generation_config.output_logits else in_place(logits_processor)
    beams, criteria = generation_config.num_beams, stopping_criteria
    if beams != 1 and not synced_gpus and can_drop(model, generation_config, processors, criteria, model_kwargs):
        return beam_search(model, input_ids, processors, criteria, generation_config, drop_sources, **model_kwargs)
    return library_search(beams)(
        model, input_ids, processors, stopping_criteria, generation_config, synced_gpus=synced_gpus, **model_kwargs
    )
