"""Refuse unknown keyword arguments, which transformers' models ignore silently."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from transformers.utils import TransformersKwargs

# Arguments that every transformers model accepts, although few name them in their signature.
_COMMON = frozenset(TransformersKwargs.__annotations__)


def split_kwargs(model: Any, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the keyword arguments of ``forward`` between encoder and decoder.

    Args:
        model: The joint model.
        kwargs: Arguments for the encoder, and for the decoder with the prefix ``decoder_``.

    Returns:
        The arguments of the encoder, and those of the decoder without the prefix.

    Raises:
        TypeError: A submodel does not know an argument.
    """
    to_decoder = {name.removeprefix("decoder_"): kwargs[name] for name in kwargs if name.startswith("decoder_")}
    to_encoder = {name: value for name, value in kwargs.items() if not name.startswith("decoder_")}
    # Tokenizers return token_type_ids for every encoder; the model drops them if the encoder takes none.
    _refuse(model, model.encoder, to_encoder.keys() - {"token_type_ids"}, "")
    _refuse(model, model.decoder, to_decoder, "decoder_")
    return to_encoder, to_decoder


def _refuse(model: Any, submodel: nn.Module, given: Iterable[str], prefix: str) -> None:
    uncommon = set(given) - _COMMON
    if uncommon and (unknown := sorted(uncommon - _keywords(type(submodel).forward))):
        known = {*_keywords(type(model).forward), *(prefix + name for name in _keywords(type(submodel).forward))}
        target = f"{type(model).__name__} or its {'decoder' if prefix else 'encoder'} {type(submodel).__name__}"
        raise TypeError(unknown_keyword(prefix + unknown[0], target, known))


@functools.cache
def _keywords(forward: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(forward).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(one.name for one in parameters if one.kind in named) - {"self"}


def unknown_keyword(name: str, target: str, known: Iterable[str]) -> str:
    """Write the error message for an unknown keyword, with the most similar known one.

    Args:
        name: The keyword.
        target: What it was passed to.
        known: The keywords that ``target`` accepts.
    """
    nearest = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"{name!r} is not a keyword of {target}.{hint}"
