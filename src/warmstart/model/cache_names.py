"""What transformers calls a cache: up to 5.23 ``past_key_values`` (Mamba ``cache_params``), since then ``cache``."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.modeling_outputs import Seq2SeqLMOutput

CACHE_NAMES = (
    ("cache",) if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else ("past_key_values", "cache_params")
)
"""Names in this transformers' arguments and outputs; the first is the one that ``generate`` passes on."""


def cache_name(taken: Mapping[str, Any]) -> str | None:
    """The name under which arguments, outputs or parameters hold a cache; None where they hold none."""
    return next((name for name in CACHE_NAMES if name in taken), None)


def cache_of(given: Mapping[str, Any]) -> Any:
    """The cache among ``given``, whatever its name; None where there is none."""
    name = cache_name(given)
    return None if name is None else given[name]


def one_cache(cache: Any, past_key_values: Any) -> Any:
    """The one of the two that was given.

    Raises:
        ValueError: both were, and they differ.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ValueError("cache and past_key_values are two names of one argument, and both were given. Leave one out.")
    return past_key_values if cache is None else cache
