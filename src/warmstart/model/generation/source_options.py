"""Checks of ``generate`` options: those that need one vocabulary, and those that are set in the wrong config.

``encoder_repetition_penalty`` and ``encoder_no_repeat_ngram_size`` compare source ids with target ids. With two
vocabularies they would favour or block unrelated tokens.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import EncoderNoRepeatNGramLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor

from warmstart.compat.transformers import generation_parameters

WITHOUT_SOURCE = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}
"""Arguments of ``generate`` that switch the comparison with the source off."""

_PROCESSORS: dict[str, Any] = {
    "encoder_repetition_penalty": EncoderRepetitionPenaltyLogitsProcessor,
    "encoder_no_repeat_ngram_size": EncoderNoRepeatNGramLogitsProcessor,
}
_COMPARED_TOKENS = 1024
_RELATED = 0.5  # correlation of two embeddings: near 1 for one token after fine-tuning, near 0 for unrelated tokens


def option(name: str, default: Any, model: Any, generation_config: Any, kwargs: dict[str, Any]) -> Any:
    """Return an option as ``generate`` finds it: argument, ``generation_config``, the model's own, else ``default``."""
    given = kwargs.get(name), getattr(generation_config, name, None), getattr(model.generation_config, name, None)
    return next((value for value in given if value is not None), default)


def chosen_source_options(model: Any, generation_config: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the options that compare target ids with source ids and are switched on.

    If the submodels have different vocabularies, a value that only comes from the decoder's pretrained config
    (Blenderbot) is switched off in ``kwargs``, in place.

    Raises:
        ValueError: An option was requested, but the submodels have different vocabularies.
    """
    values = {name: option(name, none, model, generation_config, kwargs) for name, none in WITHOUT_SOURCE.items()}
    chosen = {name: value for name, value in values.items() if value != WITHOUT_SOURCE[name]}
    if not chosen or have_one_vocabulary(model.encoder, model.decoder):
        return chosen
    for name, value in list(chosen.items()):
        requested = kwargs.get(name) is not None or getattr(generation_config, name, None) is not None
        if not requested and value == getattr(model.config.decoder, name, None):
            kwargs[name] = WITHOUT_SOURCE[name]
            del chosen[name]
    if chosen:
        name, value = next(iter(chosen.items()))
        raise ValueError(
            f"{name}={value} was requested, which compares source ids with target ids, but encoder and decoder have "
            f"different vocabularies. Leave it out, or pass logits_processor=[{_PROCESSORS[name].__name__}({value}, "
            "ids)] from transformers.generation with the source in the decoder's ids."
        )
    return chosen


def source_arguments(chosen: dict[str, Any], ids_BS: Tensor | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that apply the options to the source in a decoder-only ``generate``, which knows no source.

    Args:
        chosen: The result of ``chosen_source_options``.
        ids_BS: Source ids (B, S); None if the source is embeddings or encoder states.
        kwargs: Arguments of ``generate``.

    Raises:
        ValueError: The source has no ids.
    """
    if not chosen:
        return {}
    if ids_BS is None:
        raise ValueError(f"{', '.join(chosen)} was requested, but the source has no ids. Pass input_ids.")
    processors = [_PROCESSORS[name](value, ids_BS) for name, value in chosen.items()]
    return WITHOUT_SOURCE | {
        "logits_processor": LogitsProcessorList([*processors, *(kwargs.get("logits_processor") or ())])
    }


@torch.no_grad()
def have_one_vocabulary(encoder: Any, decoder: Any) -> bool:
    """Estimate from the token embeddings whether both submodels have the same vocabulary.

    True for shared embeddings, and for embeddings that correlate: fine-tuning changes those of one checkpoint little,
    whereas those of two vocabularies are unrelated. Untrained embeddings count as different.
    """
    own, other = encoder.get_input_embeddings().weight, decoder.get_input_embeddings().weight
    if own is other:
        return True
    if own.shape != other.shape:
        return False
    step = max(1, len(own) // _COMPARED_TOKENS)
    own_NH, other_NH = (table[::step].float() for table in (own, other.to(own.device)))
    own_NH, other_NH = (table - table.mean(dim=0) for table in (own_NH, other_NH))
    correlation_N = torch.cosine_similarity(own_NH, other_NH, dim=1)
    return bool(correlation_N.quantile(0.05) > _RELATED)


def refuse_options_in_config(config: Any, generation_config: Any) -> None:
    """Refuse options of ``generate`` that are set in the joint config or the decoder's, where it does not read them.

    Raises:
        ValueError: There are such options, and ``generation_config`` is None.
    """
    if generation_config is not None:
        return
    for where, one in (("config", config), ("config.decoder", config.decoder)):
        if found := generation_parameters(one):
            name, value = next(iter(found.items()))
            raise ValueError(
                f"model.{where} sets {', '.join(sorted(found)[:10])}, which generate does not read there. "
                f"Set model.generation_config.{name} = {value!r}, or pass {name}={value!r} to generate."
            )
