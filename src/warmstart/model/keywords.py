"""Keyword arguments that nobody knows: refused, since transformers' models swallow them without a sign."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from transformers.utils import TransformersKwargs

# What any model of transformers may be given, although few name it in their signature.
_ANY_MODEL = frozenset(TransformersKwargs.__annotations__)


def split_kwargs(model: Any, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keywords for the encoder of a joint ``model`` and those for its decoder, without ``decoder_``.

    Raises:
        TypeError: the submodel that a keyword goes to does not know it.
    """
    to_decoder = {name.removeprefix("decoder_"): kwargs[name] for name in kwargs if name.startswith("decoder_")}
    to_encoder = {name: value for name, value in kwargs.items() if not name.startswith("decoder_")}
    # Tokenizers make token_type_ids for every encoder; the model leaves them out where there are none.
    _refuse(model, model.encoder, to_encoder.keys() - {"token_type_ids"}, "")
    _refuse(model, model.decoder, to_decoder, "decoder_")
    return to_encoder, to_decoder


def _refuse(model: Any, submodel: nn.Module, given: Iterable[str], prefix: str) -> None:
    uncommon = set(given) - _ANY_MODEL
    if uncommon and (unknown := sorted(uncommon - _keywords(type(submodel).forward))):
        known = {*_keywords(type(model).forward), *(prefix + name for name in _keywords(type(submodel).forward))}
        taker = f"{type(model).__name__} or its {'decoder' if prefix else 'encoder'} {type(submodel).__name__}"
        raise TypeError(unknown_keyword(prefix + unknown[0], taker, known))


@functools.cache
def _keywords(forward: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(forward).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(one.name for one in parameters if one.kind in named) - {"self"}


def unknown_keyword(name: str, taker: str, known: Iterable[str]) -> str:
    """The message for a keyword that ``taker`` does not take, with the nearest one that it does."""
    nearest = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"{name!r} is not a keyword of {taker}.{hint}"
