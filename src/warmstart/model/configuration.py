"""Configuration of an encoder-decoder model: both submodels' configs, special ids, sharing and adapters.

    config = EncoderDecoderConfig(encoder=BertConfig(), decoder=BertConfig())

Names and file format are those of ``transformers.EncoderDecoderConfig`` (``model_type: encoder-decoder``), and either
class reads the other's ``config.json``. Unlike that class, the constructor always switches on the decoder's causal mask
and cross-attention. It works on copies and does not change the caller's configs.
"""

import copy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec

from warmstart.compat.transformers import attention_of
from warmstart.model.bridge.grafting import graft_settings
from warmstart.model.decoders import has_own_cross_attention, make_decoder, text_part

SPECIAL_IDS = ("decoder_start_token_id", "eos_token_id", "pad_token_id")


@strict
class EncoderDecoderConfig(PreTrainedConfig):
    """Configuration of ``EncoderDecoderModel``.

    Args:
        encoder: Config of the encoder, or a dict with a ``model_type``. Default: BERT's.
        decoder: Config of the decoder, or a dict with a ``model_type``. Default: BERT's.
        pad_token_id: The decoder's pad id, for training and generation.
        eos_token_id: The decoder's end id, or a list of them.
        decoder_start_token_id: The decoder's start id.
        prompt_ids: Ids between the start id and every target: further start tokens, or a prompt. The model does not
            learn to write them, and ``generate`` begins with them.
        tie_encoder_decoder: Share encoder and decoder weights layer by layer (BERTSHARE, Rothe et al. 2020).
        tie_embeddings: Share only the token embeddings of encoder and decoder.
        tied_parameters: More shared parameters, ``{name: name of the parameter that it equals}``; written by
            ``save_pretrained``.
        graft: Settings of grafted cross-attention (``every_n_layers``, ``gate``, ``dropout``, ``bias``; see
            ``warmstart.model.bridge.grafting``). Default: None if the decoder has cross-attention of its own, else the
            default settings.
        lora: Settings of low-rank adapters (``halves``, ``rank``, ``alpha``; see ``warmstart.model.bridge.lora``); None
            if there are none, as in every export.

    Raises:
        ValueError: ``graft`` has an invalid setting, or a config names an attention implementation on the hub.
    """

    model_type = "encoder-decoder"
    sub_configs_defaults = {  # noqa: RUF012 - the base class' protocol
        "encoder": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "decoder": SubConfigSpec(
            config_class=AutoConfig, model_type="bert", init_kwargs={"is_decoder": True, "add_cross_attention": True}
        ),
    }

    encoder: Any = None
    decoder: Any = None
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None
    prompt_ids: list[int] | None = None
    is_encoder_decoder: bool = True
    tie_encoder_decoder: bool | None = False
    tie_embeddings: bool | None = False
    tied_parameters: dict[str, str] | None = None
    graft: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None
    initializer_range = 0.02  # of new parameters; not annotated, so it is not a field and not saved

    def __post_init__(self, **kwargs: Any) -> None:
        # Copies, because the caller may still use these configs, and one object may be given for both submodels.
        self.encoder, self.decoder = copy.deepcopy(self.encoder), copy.deepcopy(self.decoder)
        super().__post_init__(**kwargs)
        refuse_kernels(self, self.encoder, self.decoder)
        self.encoder.is_decoder = False
        self.encoder.add_cross_attention = False
        self.decoder = text_part(self.decoder)
        if self.graft is not None or not has_own_cross_attention(self.decoder):
            self.graft = graft_settings(self.graft)
        make_decoder(self.decoder, grafted=self.graft is not None)

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: PreTrainedConfig, decoder_config: PreTrainedConfig, **kwargs: Any
    ) -> "EncoderDecoderConfig":
        """Join two configs.

        Args:
            encoder_config: Config of the encoder.
            decoder_config: Config of the decoder.
            **kwargs: Fields of the joint config.
        """
        return cls(encoder=encoder_config, decoder=decoder_config, **kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the encoder's config for ``encoder=True``, else the decoder's, which generation uses."""
        config: PreTrainedConfig = self.encoder if encoder and not decoder else self.decoder
        return config


def refuse_kernels(*configs: Any) -> None:
    """Refuse an attention implementation on the hub: transformers would download and run its code.

    Raises:
        ValueError: A config names one.
    """
    for config in configs:
        attention = attention_of(config)
        if attention is not None and "/" in attention:
            raise ValueError(
                f"The {config.model_type} config sets attn_implementation={attention!r}, which is code from a hub "
                "and is not run. Remove attn_implementation from its config.json."
            )


def use_config(submodel: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Replace the config of a submodel and of its layers by ``config``, in place.

    ``config`` is part of the joint config. A later change of the joint config then reaches every layer.
    """
    own = submodel.config
    modules: Any = submodel.modules()
    for module in modules:
        if getattr(module, "config", None) is own:
            module.config = config


def sync_special_ids(config: Any, generation_config: Any) -> None:
    """Copy the special ids that are set in ``config`` to ``generation_config``, in place.

    transformers stores the decoder's start, end and pad ids twice: training reads ``config``, and ``generate`` reads
    ``generation_config``. Here ``config`` takes precedence.
    """
    for name in SPECIAL_IDS:
        value = getattr(config, name, None)
        if value is not None:
            setattr(generation_config, name, value)
