"""Names of the KV cache in transformers: ``past_key_values`` or ``cache_params`` (Mamba) up to 5.23, then ``cache``."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers.modeling_outputs import Seq2SeqLMOutput

CACHE_NAMES = (
    ("cache",) if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else ("past_key_values", "cache_params")
)
"""Names in the arguments and outputs of the installed transformers; ``generate`` uses the first."""


def cache_name(taken: Mapping[str, Any]) -> str | None:
    """Return the name of the cache in arguments, outputs or parameters, or None."""
    return next((name for name in CACHE_NAMES if name in taken), None)


def cache_of(given: Mapping[str, Any]) -> Any:
    """Return the cache in arguments or outputs, or None."""
    name = cache_name(given)
    return None if name is None else given[name]


def one_cache(cache: Any, past_key_values: Any) -> Any:
    """Return the cache that a caller passed under either name of the argument.

    Raises:
        ValueError: Both were passed, and they differ.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ValueError("cache and past_key_values are two names of one argument, and both were given. Pass only one.")
    return past_key_values if cache is None else cache
