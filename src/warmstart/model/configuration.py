"""The configuration of a warm-started pair: one encoder's, one decoder's, and the ids and sharing that join them.

    config = EncoderDecoderConfig(encoder=BertConfig(), decoder=BertConfig())

Same names and file format as ``transformers.EncoderDecoderConfig`` (``model_type: encoder-decoder``), so a
``config.json`` moves both ways. Unlike it, the constructor itself makes the decoder half a decoder: a causal mask and
cross-attention are switched on whichever way the config is built, on copies, so the caller's configs stay as they were.
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
    """Configuration of :class:`EncoderDecoderModel`.

    Args:
        encoder, decoder: configs of the halves, or dicts with a ``model_type``; BERT's where left out.
        decoder_start_token_id, eos_token_id, pad_token_id: decoder-side ids. They steer training *and* generation.
        tie_encoder_decoder: share encoder and decoder weights layer by layer (BERTSHARE, Rothe et al. 2020).
        tie_embeddings: share the token embeddings of encoder and decoder alone.
        graft: how cross-attention is grafted onto a decoder that has none (``every_n_layers``, ``gate``, ``dropout``,
            ``bias``; see :mod:`warmstart.model.bridge.grafting`); None where the decoder's own is used.
        lora: low-rank adapters (``halves``, ``rank``, ``alpha``; see :mod:`warmstart.model.bridge.lora`); None where
            there are none, as in every export.
        tied_parameters: further shared parameters, ``{name: name it equals}``; written by ``save_pretrained``.
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
    is_encoder_decoder: bool = True
    tie_encoder_decoder: bool | None = False
    tie_embeddings: bool | None = False
    tied_parameters: dict[str, str] | None = None
    graft: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None
    initializer_range = 0.02  # of what is new, whichever decoder it is new for; no field: no config.json has it

    def __post_init__(self, **kwargs: Any) -> None:
        # Copies: making the decoder a decoder must not change the config of a model that the caller still uses, and
        # one object given for both halves must become two.
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
        """Join two configs; further keyword arguments set fields of the joint config."""
        return cls(encoder=encoder_config, decoder=decoder_config, **kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the encoder's config for ``encoder=True``, else the decoder's, which generation and caches read."""
        config: PreTrainedConfig = self.encoder if encoder and not decoder else self.decoder
        return config


def refuse_kernels(*configs: Any) -> None:
    """An attention that is named like a repository would be downloaded and run: a checkpoint cannot ask for that.

    Raises:
        ValueError: a config names one.
    """
    for config in configs:
        attention = attention_of(config)
        if attention is not None and "/" in attention:
            raise ValueError(
                f"The config of a {config.model_type} asks for the attention {attention!r}, which is "
                "code from a hub and is not run. Take attn_implementation out of its config.json."
            )


def use_config(half: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Let ``config`` be the half's, so that a later change reaches the joint config, the half and its layers alike.

    A half that was loaded brings a config of its own, which its layers hold, too: they would go on with that.
    """
    own = half.config
    modules: Any = half.modules()
    for module in modules:
        if getattr(module, "config", None) is own:
            module.config = config


def sync_special_ids(config: Any, generation_config: Any) -> None:
    """Copy the special ids that ``config`` has into ``generation_config``, in place.

    transformers keeps the decoder's start, end and pad ids twice, in ``config`` (training shifts the labels by it) and
    in ``generation_config`` (``generate`` starts with it), and lets the two drift apart. Here ``config`` wins.
    """
    for name in SPECIAL_IDS:
        value = getattr(config, name, None)
        if value is not None:
            setattr(generation_config, name, value)
