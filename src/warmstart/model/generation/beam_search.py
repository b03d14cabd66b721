"""Beam search that removes a source from the batch once its result cannot change.

Candidates, scores and stopping rules are those of transformers' beam search, which computes all beams until the last
source ends. Here a source is removed when all its beams have finished and, given the length penalty and
``early_stopping``, no running beam can score higher. Searches that sample, return more than ids, or use processors that
depend on batch positions use transformers' own code.

Shapes: B sources, K beams, C candidates per source, R = B x K sequences, L longest target, V vocabulary.
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
from warmstart.errors import UserError
from warmstart.model.cache_names import cache_of
from warmstart.model.generation.logits_processors import NoEarlyEnd, NoRepeatedNGrams, in_place
from warmstart.model.generation.source_cache import SourceCache
from warmstart.model.generation.word_ngrams import NoRepeatedWordNGrams

EXCLUDED = -1.0e9  # the score of an excluded candidate in transformers; sums with it decide ties, so keep the value
_INDEPENDENT_PROCESSORS = (  # their result for a sequence does not depend on its position in the batch
    NoRepeatedNGrams,
    NoRepeatedWordNGrams,
    NoEarlyEnd,
    logits_process.ForcedBOSTokenLogitsProcessor,
    logits_process.ForcedEOSTokenLogitsProcessor,
    logits_process.NoBadWordsLogitsProcessor,
    logits_process.SuppressTokensLogitsProcessor,
)
_INDEPENDENT_CRITERIA = (stopping_criteria.MaxLengthCriteria, stopping_criteria.EosTokenCriteria)
_PER_SEQUENCE = ("attention_mask", "decoder_attention_mask", "token_type_ids", "position_ids", "decoder_position_ids")
_SEARCHES = (
    *(GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE),
    *(GenerationMode.BEAM_SEARCH, GenerationMode.BEAM_SAMPLE),
)
_MORE_THAN_IDS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")

DropSources = Callable[[Tensor], None]
"""Called with the indices of the sources that remain, among those still in the batch."""

LENGTH_PENALTIES: dict[str, Callable[[int, float], float]] = {
    "transformers": lambda length, alpha: length**alpha,
    "gnmt": lambda length, alpha: ((5 + length) / 6) ** alpha,
}
"""What the log-probability of a target is divided by, from its length in tokens (end token included) and
``length_penalty``, by the name of the definition. ``gnmt`` is equation 14 of Wu et al. (2016)."""


class UnsupportedSearch(UserError, ValueError):
    """The options ask for a search that neither this package nor transformers has for this model."""


def can_drop(
    model: Any, config: GenerationConfig, processors: Any, criteria: Any, model_kwargs: dict[str, Any]
) -> bool:
    """Return whether sources can be removed from the batch without a change for the others."""
    cache: Any = cache_of(model_kwargs)
    own = _of_target(cache)
    tensors = {name for name, value in model_kwargs.items() if isinstance(value, Tensor) and value.dim()}
    return (
        not config.do_sample
        and not (config.return_dict_in_generate or any(getattr(config, name) for name in _MORE_THAN_IDS))
        and all(type(one) in _INDEPENDENT_PROCESSORS for one in processors)
        and all(type(one) in _INDEPENDENT_CRITERIA for one in criteria)
        and config.prefill_chunk_size is None
        and not reorders_cache_itself(model)
        and type(own) is DynamicCache
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in own.layers)
        and (own is cache or isinstance(cache.cross_attention_cache, SourceCache))
        and tensors <= {*_PER_SEQUENCE}
    )


def _of_target(cache: Any) -> Any:
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


@dataclass
class _Beams:
    """State of the search for the sources in the batch."""

    source: Tensor  # (B,) index of the source in the original batch
    ids: Tensor  # (B, K, L) running beams
    scores: Tensor  # (B, K) of running beams
    done_ids: Tensor  # (B, K, L) best finished beams
    done_scores: Tensor  # (B, K)
    done_lengths: Tensor  # (B, K) generated tokens
    done: Tensor  # (B, K) whether this entry holds a finished beam
    open: Tensor  # (B, 1) whether a running beam can still score higher

    def select(self, kept: Tensor) -> "_Beams":
        return _Beams(*(getattr(self, field.name)[kept] for field in fields(self)))


@torch.no_grad()
def beam_search(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: Any,
    generation_config: GenerationConfig,
    drop_sources: DropSources | None = None,
    length_penalty_kind: str = "transformers",
    **model_kwargs: Any,
) -> Tensor:
    """Find the best ``num_return_sequences`` targets of each source, as ``GenerationMixin._beam_search`` does.

    Args:
        model: A model with transformers' generation methods.
        input_ids: (R, T) start of each sequence.
        logits_processor: Processors of the scores.
        stopping_criteria: Criteria that end a sequence.
        generation_config: Number of beams, length penalty, early stopping and special ids.
        drop_sources: Removes sources from a decoder that does not get its source through ``model_kwargs``.
        length_penalty_kind: A name in ``LENGTH_PENALTIES``.
        **model_kwargs: Arguments of ``model``: cache, masks, encoder states.

    Returns:
        Ids (B x ``num_return_sequences``, length), padded on the right.
    """
    config, beams = generation_config, generation_config.num_beams
    early, alpha, penalty = config.early_stopping, config.length_penalty, LENGTH_PENALTIES[length_penalty_kind]
    begun = length = input_ids.shape[1]
    ends = _ids(config.eos_token_id)
    candidates = max(2, 1 + len(ends)) * beams
    # As in transformers: the pad token, or the end token if pad is 0 or not set.
    fill = (_ids(config.pad_token_id) or [0])[0] or ends[0] if ends else -1
    state = _begin(input_ids, beams, config.max_length, fill)
    results = _begin(input_ids, beams, config.max_length, fill)
    sequences: Any = input_ids
    outputs = prefill(model, input_ids, config, model_kwargs)
    cpu.use_beam_cache(model, _of_target(cache_of(model_kwargs)))
    while True:
        model_kwargs = next_model_kwargs(model, outputs, model_kwargs)
        logits_RV = outputs.logits[:, -1, :].to(input_ids.device)
        del outputs
        scores_RV = logits_processor(sequences, cpu.log_probabilities(logits_RV))
        sources, vocabulary = len(state.source), scores_RV.shape[-1]
        scores_BKV = scores_RV.view(sources, beams, vocabulary).add_(state.scores[:, :, None])
        exact = logits_RV.dtype == torch.float32
        scores_BC, chosen_BC = cpu.best_candidates(scores_BKV.flatten(1), candidates, ties_as_topk=exact)
        from_BC = chosen_BC // vocabulary
        ids_BCL = _take(state.ids, from_BC)
        ids_BCL[:, :, length] = chosen_BC % vocabulary
        ends_BC = stopping_criteria(ids_BCL[:, :, : length + 1].flatten(0, 1), None).view(sources, candidates)

        running_BC = scores_BC + ends_BC.float() * EXCLUDED
        best_BK = running_BC.topk(beams)[1]
        _finish(state, ids_BCL, scores_BC, ends_BC, length + 1 - begun, penalty(length + 1 - begun, alpha), early)
        state.ids, state.scores = _take(ids_BCL, best_BK), _take(running_BC, best_BK)
        moved_BK = _take(from_BC, best_BK)
        length += 1

        longest = config.max_length if early == "never" and alpha > 0 else length
        best_possible = state.scores[:, :1] / penalty(longest - begun, alpha)
        worst = torch.where(state.done, state.done_scores.min(dim=1, keepdim=True)[0], EXCLUDED)
        state.open &= (best_possible > worst).any(dim=-1, keepdim=True)

        full = state.done.all(dim=-1)
        decided = full & (~state.open[:, 0] | (early is True))
        if ends_BC.all() or not state.open.any() or (early is True and full.all()) or decided.all():
            break
        stays = (~decided).nonzero()[:, 0]
        sequence_of = torch.arange(sources, device=stays.device)[:, None] * beams + moved_BK
        if len(stays) < sources:
            _keep(results, state)
            state, sequence_of = state.select(stays), sequence_of[stays]
            _drop(model_kwargs, stays, sources, beams)
            if drop_sources is not None:
                drop_sources(stays)
        cache_of(model_kwargs).reorder_cache(sequence_of.flatten())
        sequences = state.ids[:, :, :length].flatten(0, 1)
        inputs = model.prepare_inputs_for_generation(sequences, next_sequence_length=1, **model_kwargs)
        outputs = model(**inputs, return_dict=True)

    _keep(results, state)
    returned = config.num_return_sequences
    longest = int(results.done_lengths[:, :returned].max())
    return results.done_ids[:, :returned, : begun + longest].flatten(0, 1)


def _ids(given: Any) -> list[int]:
    """Return the ids of an option of ``generate``, which may be None, a number, a list or a tensor."""
    return [] if given is None else torch.as_tensor(given).flatten().tolist()


def _begin(input_ids: Tensor, beams: int, max_length: int, fill: Any) -> _Beams:
    device = input_ids.device
    ids_BKT = input_ids.view(-1, beams, input_ids.shape[1])
    sources = len(ids_BKT)
    ids_BKL = ids_BKT.new_full((sources, beams, max_length), int(fill))
    ids_BKL[:, :, : input_ids.shape[1]] = ids_BKT
    scores = torch.zeros(sources, beams, device=device)
    scores[:, 1:] = EXCLUDED  # all beams start with the same ids, so only the first one provides candidates
    return _Beams(
        source=torch.arange(sources, device=device),
        ids=ids_BKL,
        scores=scores,
        done_ids=ids_BKL.clone(),
        done_scores=torch.full((sources, beams), EXCLUDED, device=device),
        done_lengths=torch.zeros(sources, beams, dtype=torch.long, device=device),
        done=torch.zeros(sources, beams, dtype=torch.bool, device=device),
        open=torch.ones(sources, 1, dtype=torch.bool, device=device),
    )


def _finish(
    state: _Beams, ids_BCL: Tensor, scores_BC: Tensor, ends_BC: Tensor, generated: int, penalty: float, early: Any
) -> None:
    """Add finished candidates among the K best of their step to the finished beams, if their source is still open."""
    beams = state.done.shape[1]
    ends_BC = ends_BC & (torch.arange(ends_BC.shape[1], device=ends_BC.device) < beams)
    scores_BC = scores_BC / penalty
    full = state.done.all(dim=-1, keepdim=True) & (early is True)
    for excluded in (full, ~state.open, ~ends_BC):
        scores_BC = scores_BC + excluded.float() * EXCLUDED
    merged = torch.cat([state.done_scores, scores_BC], dim=1)
    best = merged.topk(beams)[1]
    state.done_scores = _take(merged, best)
    state.done_ids = _take(torch.cat([state.done_ids, ids_BCL], dim=1), best)
    lengths = torch.full_like(ends_BC, generated, dtype=torch.long)
    state.done_lengths = _take(torch.cat([state.done_lengths, lengths], dim=1), best)
    state.done = _take(torch.cat([state.done, ends_BC], dim=1), best)


def _take(values: Tensor, indices: Tensor) -> Tensor:
    """Select ``values`` (B, X, ...) at ``indices`` (B, Y)."""
    return values.take_along_dim(indices.view(*indices.shape, *[1] * (values.dim() - 2)), dim=1)


def _keep(results: _Beams, state: _Beams) -> None:
    results.done_ids[state.source] = state.done_ids
    results.done_lengths[state.source] = state.done_lengths


def _drop(model_kwargs: dict[str, Any], stays: Tensor, sources: int, beams: int) -> None:
    """Keep only the sources ``stays`` in ``model_kwargs``, in place; the target's cache is reordered later."""
    kept_R = (stays[:, None] * beams + torch.arange(beams, device=stays.device)).flatten()
    for name in _PER_SEQUENCE:
        if model_kwargs.get(name) is not None:
            model_kwargs[name] = model_kwargs[name][kept_R]
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
    length_penalty_kind: str = "transformers",
    **model_kwargs: Any,
) -> Any:
    """Run a search of ``generate``: ``beam_search`` where ``can_drop`` allows it, else transformers' own code.

    Raises:
        UnsupportedSearch: The options select a mode other than greedy search, beam search and sampling, or combine a
            length penalty that transformers does not have with options that need its code.
    """
    mode = generation_config.get_generation_mode()
    if mode not in _SEARCHES:
        raise UnsupportedSearch(f"{mode.value} is not supported. Remove that option from the generation config.")
    # With output_logits, transformers returns the raw logits, so they must not be changed in place.
    processors = logits_processor if generation_config.output_logits else in_place(logits_processor)
    beams, criteria = generation_config.num_beams, stopping_criteria
    if beams != 1 and not synced_gpus and can_drop(model, generation_config, processors, criteria, model_kwargs):
        own: dict[str, Any] = {"drop_sources": drop_sources, "length_penalty_kind": length_penalty_kind}
        return beam_search(model, input_ids, processors, criteria, generation_config, **own, **model_kwargs)
    if beams != 1 and length_penalty_kind != "transformers":
        raise UnsupportedSearch(
            f"length_penalty_kind={length_penalty_kind} was requested, but only transformers' beam search serves this "
            "decoder (Mamba, MPT, RWKV) or these options (do_sample, output_scores). Set "
            "length_penalty_kind=transformers, or leave the options out."
        )
    return library_search(beams)(
        model, input_ids, processors, stopping_criteria, generation_config, synced_gpus=synced_gpus, **model_kwargs
    )
