"""Options of ``generate`` that compare the source's ids with the target's, and options that stand where none is read.

``encoder_repetition_penalty`` and ``encoder_no_repeat_ngram_size`` take source ids for target ids. That is sound where
both submodels have one vocabulary; elsewhere it favours and blocks other words than the source's.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import EncoderNoRepeatNGramLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor

from warmstart.compat.transformers import generation_parameters

WITHOUT_SOURCE = {"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}
"""Arguments of ``generate`` for a decoder that must not compare its ids with anything."""

_PROCESSORS: dict[str, Any] = {
    "encoder_repetition_penalty": EncoderRepetitionPenaltyLogitsProcessor,
    "encoder_no_repeat_ngram_size": EncoderNoRepeatNGramLogitsProcessor,
}
_COMPARED_ROWS = 1024
_RELATED = 0.5  # correlation of a token's two embeddings: near 1 after fine-tuning, near 0 for two other tokens


def option(name: str, default: Any, model: Any, generation_config: Any, kwargs: dict[str, Any]) -> Any:
    """Find an option as ``generate`` does: its argument, the given config, the model's own config, else ``default``."""
    given = kwargs.get(name), getattr(generation_config, name, None), getattr(model.generation_config, name, None)
    return next((value for value in given if value is not None), default)


def chosen_source_options(model: Any, generation_config: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that read the source and are set to something.

    Where the submodels do not share one vocabulary, a value that nobody requested, since the decoder's config brings it
    (Blenderbot), is switched off in ``kwargs``.

    Raises:
        ValueError: one was requested, and the submodels do not share one vocabulary.
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
            f"{name}={value} was requested, which takes source ids for target ids, but the embeddings of encoder and "
            f"decoder are not those of one vocabulary. Leave it out, or pass logits_processor="
            f"[{_PROCESSORS[name].__name__}({value}, ids)] of transformers.generation, with the source in the "
            "decoder's ids."
        )
    return chosen


def reading_source(chosen: dict[str, Any], ids_BS: Tensor | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a decoder-only ``generate``, which would take its own prompt for the source.

    Raises:
        ValueError: the source has no ids.
    """
    if not chosen:
        return {}
    if ids_BS is None:
        raise ValueError(f"{', '.join(chosen)} was requested, but the source has no ids. Pass input_ids.")
    made = [_PROCESSORS[name](value, ids_BS) for name, value in chosen.items()]
    return WITHOUT_SOURCE | {"logits_processor": LogitsProcessorList([*made, *(kwargs.get("logits_processor") or ())])}


@torch.no_grad()
def have_one_vocabulary(encoder: Any, decoder: Any) -> bool:
    """Whether one id is one token in both submodels, judged by their token embeddings.

    They are shared, or come from one checkpoint: training apart moves a token's embedding by little, and those of two
    vocabularies have nothing in common. Tables that were never pretrained show nothing, and count as different.
    """
    own, other = encoder.get_input_embeddings().weight, decoder.get_input_embeddings().weight
    if own is other:
        return True
    if own.shape != other.shape:
        return False
    step = max(1, len(own) // _COMPARED_ROWS)
    own_NH, other_NH = (table[::step].float() for table in (own, other.to(own.device)))
    own_NH, other_NH = (table - table.mean(dim=0) for table in (own_NH, other_NH))
    correlation_N = torch.cosine_similarity(own_NH, other_NH, dim=1)
    return bool(correlation_N.quantile(0.05) > _RELATED)


def refuse_options_in_config(config: Any, generation_config: Any) -> None:
    """Refuse options of ``generate`` on the joint config or the decoder's, where ``generate`` does not look.

    Raises:
        ValueError: there are some, and no ``generation_config`` was given instead.
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
