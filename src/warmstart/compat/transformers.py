"""Private APIs of transformers, checked in 5.23.0 and 5.24.0.

Private methods that our classes override are defined in these classes; ``tests/compat/test_overridden.py`` checks their
signatures.
"""

from typing import Any

from transformers import GenerationMixin


def attention_of(config: Any) -> str | None:
    """Return the attention implementation of a config; None before a model was built from it.

    Reads ``config._attn_implementation``: no public API returns it.
    """
    return getattr(config, "_attn_implementation", None)


def set_attention(config: Any, name: str | None) -> None:
    """Set the attention implementation of a config; models that use it run it from their next call.

    Sets ``config._attn_implementation``: ``model.set_attn_implementation`` also changes submodels with their own
    config, and cannot restore them.

    Args:
        config: The config.
        name: Name of a registered attention function.
    """
    config._attn_implementation = name


def can_set_attention(model: Any) -> bool:
    """Return whether the layers of ``model`` look up their attention function by name.

    Uses ``model._can_set_attn_implementation``: no public API reports it.
    """
    return bool(model._can_set_attn_implementation())


def from_config(model_class: Any, config: Any, **kwargs: Any) -> Any:
    """Build an untrained model from ``config``, in the config's dtype.

    Uses ``model_class._from_config``: the public ``from_config`` of the auto classes chooses the class itself, and a
    constructor ignores the dtype.
    """
    return model_class._from_config(config, **kwargs)


def generation_parameters(config: Any) -> dict[str, Any]:
    """Return the options of ``generate`` that are set in a model's config.

    Uses ``config._get_generation_parameters``: no public API returns them.
    """
    found: dict[str, Any] = config._get_generation_parameters()
    return found


def prefill(model: Any, input_ids: Any, generation_config: Any, model_kwargs: dict[str, Any]) -> Any:
    """Run the first step of a search, which fills the cache in ``model_kwargs``, and return the model's output.

    Uses ``model._prefill``, as transformers' searches do: there is no public API.
    """
    return model._prefill(input_ids, generation_config, model_kwargs)


def next_model_kwargs(model: Any, outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the next step: cache, masks and positions.

    Uses ``model._update_model_kwargs_for_generation``, which some decoders override: there is no public API.
    """
    updated: dict[str, Any] = model._update_model_kwargs_for_generation(
        outputs, model_kwargs, is_encoder_decoder=model.config.is_encoder_decoder
    )
    return updated


def library_search(beams: int) -> Any:
    """Return transformers' own search: greedy search and sampling for one beam, else beam search.

    Returns ``GenerationMixin._sample`` or ``_beam_search``: a ``custom_generate`` function replaces them, and cannot
    call them through a public API.
    """
    return GenerationMixin._sample if beams == 1 else GenerationMixin._beam_search


def reorders_cache_itself(model: Any) -> bool:
    """Return whether a model reorders its cache for beams with its own method (``_reorder_cache``)."""
    return hasattr(model, "_reorder_cache")


def forget_adapters(model: Any) -> None:
    """Remove a model's record of adapters that were merged into its weights, so that it is saved as a plain model.

    Sets ``model._hf_peft_config_loaded``: the public ``delete_adapter`` rejects older releases of peft, which can load
    and merge adapters.
    """
    del model.peft_config
    model._hf_peft_config_loaded = False
