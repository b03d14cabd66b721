"""Generation for a pair of vocabularies: transformers' ``generate`` with the source read from the encoder's side.

Shapes: B batch, S source length.
"""

import inspect
from typing import Any

from torch import Tensor
from transformers import GenerationMixin

from warmstart.model.padding import infer_source_mask
from warmstart.model.special_ids import SPECIAL_IDS, sync_special_ids


class PairGeneration(GenerationMixin):
    """What differs from ``GenerationMixin`` when source and target have different ids for pad, start and end."""

    config: Any
    encoder: Any
    main_input_name: str
    _encode: Any

    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """transformers' ``generate`` with ids from ``config`` and the source's padding from the encoder's side."""
        sync_special_ids(self.config, self.generation_config)
        if generation_config is not None:
            for name in SPECIAL_IDS:
                if getattr(generation_config, name) is None:
                    kwargs.setdefault(name, getattr(self.generation_config, name))
        kwargs = self._accepted_by_encoder(kwargs)
        return super().generate(inputs, generation_config=generation_config, **kwargs)  # type: ignore[misc]

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any], model_input_name: str | None, generation_config: Any
    ) -> dict[str, Any]:
        if model_kwargs.get("attention_mask") is None and not inputs_tensor.is_floating_point():
            # generate infers masks for decoder-only models alone; without it padding would be read as text.
            model_kwargs["attention_mask"] = infer_source_mask(inputs_tensor, self.config.encoder)
        skipped = ("decoder_", "cross_attn", "use_cache", "past_key_values", "cache_params")
        kwargs = {name: value for name, value in model_kwargs.items() if not name.startswith(skipped)}
        kwargs[model_input_name or self.main_input_name] = inputs_tensor
        kwargs["output_attentions"] = generation_config.output_attentions
        kwargs["output_hidden_states"] = generation_config.output_hidden_states
        model_kwargs["encoder_outputs"] = self._encode(**kwargs)
        return model_kwargs

    def _accepted_by_encoder(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Drop ``token_type_ids`` where the encoder has none (DistilBERT, ModernBERT): tokenizers make them anyway."""
        if "token_type_ids" in inspect.signature(self.encoder.forward).parameters:
            return kwargs
        return {name: value for name, value in kwargs.items() if name != "token_type_ids"}
