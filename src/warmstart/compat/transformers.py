"""Private parts of transformers, read in 5.24.0 (5.23 has the same).

Methods that ``generate`` and ``from_pretrained`` call on a model, and that our classes override, are not here but in
the classes; ``tests/compat/test_overridden.py`` holds their signatures.
"""

from typing import Any

from transformers import GenerationMixin


def attention_of(config: Any) -> str | None:
    """Return the attention that a model of this config runs; None before a model was built of it.

    ``config._attn_implementation``: nothing public reads it.
    """
    return getattr(config, "_attn_implementation", None)


def set_attention(config: Any, name: str | None) -> None:
    """Let models of this config run the attention ``name``, whose function is registered, from their next call on.

    ``config._attn_implementation``: ``model.set_attn_implementation`` also changes submodels with their own config, and
    cannot restore them.
    """
    config._attn_implementation = name


def can_set_attention(model: Any) -> bool:
    """Return whether the layers of ``model`` look their attention function up by name.

    ``model._can_set_attn_implementation()``: nothing public tells.
    """
    return bool(model._can_set_attn_implementation())


def from_config(model_class: Any, config: Any, **kwargs: Any) -> Any:
    """Build an untrained model of ``config``, in its dtype.

    ``model_class._from_config``: the auto classes' public ``from_config`` choose the class themselves, and a plain
    constructor ignores the dtype.
    """
    return model_class._from_config(config, **kwargs)


def generation_parameters(config: Any) -> dict[str, Any]:
    """Return options of ``generate`` that stand in a model's config, where ``save_pretrained`` refuses them.

    ``config._get_generation_parameters()``: the public way is to save the config and read the error.
    """
    found: dict[str, Any] = config._get_generation_parameters()
    return found


def prefill(model: Any, input_ids: Any, generation_config: Any, model_kwargs: dict[str, Any]) -> Any:
    """Run the first step of a search, which fills the cache in ``model_kwargs``, and return the model's output.

    ``model._prefill``: the searches' own first step; there is no public one.
    """
    return model._prefill(input_ids, generation_config, model_kwargs)


def next_model_kwargs(model: Any, outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the next step: cache, masks and positions.

    ``model._update_model_kwargs_for_generation``: decoders override it for what they pass on; there is no public one.
    """
    updated: dict[str, Any] = model._update_model_kwargs_for_generation(
        outputs, model_kwargs, is_encoder_decoder=model.config.is_encoder_decoder
    )
    return updated


def library_search(beams: int) -> Any:
    """Return transformers' own search: greedy and sampling for one beam, else beam search.

    ``GenerationMixin._sample`` and ``_beam_search``: a ``custom_generate`` function is called in their place and has no
    public way back to them.
    """
    return GenerationMixin._sample if beams == 1 else GenerationMixin._beam_search


def reorders_cache_itself(model: Any) -> bool:
    """Return whether a model has a method of its own that reorders its cache for beams (``_reorder_cache``)."""
    return hasattr(model, "_reorder_cache")


def forget_adapters(model: Any) -> None:
    """Make a model forget the adapters that were merged into its weights, so that it is saved as a plain one.

    ``model._hf_peft_config_loaded``: ``delete_adapter`` would do, but refuses older releases of peft, which can load
    and merge.
    """
    del model.peft_config
    model._hf_peft_config_loaded = False
