"""One sequence-to-sequence model from any encoder and any decoder with cross-attention (Rothe et al. 2020).

    EncoderDecoderModel.from_encoder_decoder_pretrained("google-bert/bert-base-uncased", "openai-community/gpt2")

Names, arguments, outputs and state-dict keys are those of ``transformers.EncoderDecoderModel``; where that class is
right the numbers are equal, and checkpoints move both ways. docs/design/model.md says where it differs.
Importing this module changes what transformers' auto classes open: :mod:`warmstart.model.auto_classes`.

Shapes: B batch, S source length, T target length, H width, V decoder vocabulary, N label positions.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from warmstart.cpu.activations import fuse_activations
from warmstart.model.auto_classes import register
from warmstart.model.bridge.cross_attention import CrossAttention
from warmstart.model.bridge.grafting import graft, initialize, kwargs_for_decoder
from warmstart.model.bridge.lora import add_lora
from warmstart.model.bridge.tying import keep_pretrained, shared_across_halves, sharing_map
from warmstart.model.call_checks import requested_outputs, warn_of_copied_labels
from warmstart.model.call_state import CallState, Source
from warmstart.model.configuration import EncoderDecoderConfig, use_config
from warmstart.model.decoders import (
    NO_GRADIENT_CHECKPOINTING,
    check_cross_attention,
    check_widths,
    cross_attention_modules,
    decoder_class,
    drop_own_cross_attention,
)
from warmstart.model.encoders import build_encoder, drop_pooler, encoder_class, states_width
from warmstart.model.generation.cache_names import CACHE_NAMES, cache_of, one_cache
from warmstart.model.generation.mixin import PairGeneration
from warmstart.model.generation.source_cache import FoldBeams, mask_of_sources, weights_by_row
from warmstart.model.keywords import split_kwargs
from warmstart.model.label_losses import LabelLosses
from warmstart.model.loading import Halves, load_halves
from warmstart.model.loss import Head, cross_entropy
from warmstart.model.new_parameters import BRIDGE, NewParameters
from warmstart.model.padding import (
    decoder_positions,
    encode_right_padded,
    global_first_token,
    infer_source_mask,
    mask_of_batch,
    mask_of_shifted,
    shift_right,
)
from warmstart.model.pair_loading import PairLoading
from warmstart.model.resizing import resize_token_embeddings
from warmstart.model.special_ids import sync_special_ids


class EncoderDecoderModel(PairLoading, NewParameters, LabelLosses, PairGeneration, GenerationMixin):
    """An encoder and a decoder joined by the decoder's cross-attention.

    Build it from a ``config`` (untrained), from ``encoder`` and ``decoder`` objects, with
    :meth:`from_encoder_decoder_pretrained` (two checkpoints) or ``from_pretrained`` (one checkpoint of the pair).

    Raises:
        ValueError: the decoder cannot be one (no cross-attention, or an unsound one), the encoder has a language-model
            head, or a ``cross_attention_hidden_size`` contradicts the encoder's width.
    """

    config: EncoderDecoderConfig
    config_class = EncoderDecoderConfig
    base_model_prefix = "encoder_decoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _keys_to_ignore_on_load_unexpected = [r"^encoder\.pooler\."]  # noqa: RUF012 - the base class' protocol

    def __init__(
        self,
        config: EncoderDecoderConfig | None = None,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ):
        if config is None:
            if encoder is None or decoder is None:
                raise ValueError("Either a configuration or an encoder and a decoder has to be provided.")
            config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        elif not isinstance(config, self.config_class):
            raise ValueError(f"Config: {config} has to be of type {self.config_class}")
        decoder_class(config.decoder)
        encoder_class(config.encoder)
        check_widths(config)
        if decoder is not None and config.graft is None:
            check_cross_attention(decoder)
        if encoder is not None and encoder.get_output_embeddings() is not None:
            raise ValueError(
                f"The encoder {type(encoder).__name__} has a language-model head. Use a model without one."
            )
        super().__init__(config)

        encoder = build_encoder(config.encoder) if encoder is None else drop_pooler(encoder)
        if decoder is None:
            decoder = decoder_class(config.decoder)._from_config(config.decoder)
        self.encoder, self.decoder = encoder, decoder
        for half, its_config in ((encoder, config.encoder), (decoder, config.decoder)):
            its_config._attn_implementation = half.config._attn_implementation
            use_config(half, its_config)
            fuse_activations(half)

        # Halves of two precisions would meet in one matrix product; both go to the wider.
        dtype = torch.promote_types(encoder.dtype, decoder.dtype)
        for half in (encoder, decoder):
            if half.dtype != dtype:
                half.to(dtype)  # type: ignore[arg-type]
        if self._needs_projection:
            self.enc_to_dec_proj = nn.Linear(states_width(config.encoder), config.decoder.hidden_size, dtype=dtype)
        self._head: Head | None = None
        self._drops_lean = False
        self._call = CallState()
        if config.graft is not None:
            drop_own_cross_attention(decoder)
            drop_pooler(decoder.base_model)  # BigBird's causal language model has one
            # The joint model's own child: the pretrained decoder's keys stay what they were.
            self.cross_attention = graft(decoder, config.graft, config.decoder.hidden_size, self._call)
            self.cross_attention.to(dtype)
        else:
            FoldBeams.attach(cross_attention_modules(decoder).values())
        self.post_init()
        if config.lora is not None:
            add_lora(self, config.lora)  # after initialization: adapters begin without effect

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CrossAttention):
            initialize(module)

    # --- the halves ------------------------------------------------------------------------------------------------

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | None = None,
        decoder_pretrained_model_name_or_path: str | None = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> "EncoderDecoderModel":
        """Warm-start from two checkpoints (hub ids or folders).

        Keyword arguments beginning with ``encoder_`` and ``decoder_`` go to that half (to its config where it knows
        them, else to its ``from_pretrained``); ``encoder_model``, ``decoder_model``, ``encoder_config`` and
        ``decoder_config`` take objects; ``dtype``, ``revision`` and ``attn_implementation`` without a prefix go to both
        halves, any other to the joint config. ``model_args`` go to the encoder's ``from_pretrained``, as transformers
        has it.

        Raises:
            ValueError: a half is missing, or cannot serve; a decoder is refused before any weight is loaded.
        """
        halves, joint = load_halves(
            encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path, kwargs, model_args
        )
        return cls.from_halves(halves, joint)

    @classmethod
    def from_halves(cls, halves: Halves, joint: dict[str, Any]) -> "EncoderDecoderModel":
        """Join two halves, with the fields ``joint`` of the joint config; what they share keeps a checkpoint's values.

        Raises:
            ValueError: the halves do not fit each other.
        """
        config = EncoderDecoderConfig.from_encoder_decoder_configs(
            halves.encoder.config, halves.decoder.config, **joint
        )
        untrained = {f"encoder.{name}" for name in halves.encoder_missing}
        untrained |= {f"decoder.{name}" for name in halves.decoder_missing}
        keep_pretrained(config, halves.encoder, halves.decoder, untrained)
        model = cls(config=config, encoder=halves.encoder, decoder=halves.decoder)
        model.eval()
        bridge = {name for name, _ in model.named_parameters() if name.startswith(BRIDGE)}
        model._new_parameters = untrained | bridge
        return model

    def get_encoder(self, *args: Any, **kwargs: Any) -> PreTrainedModel:
        return self.encoder

    def get_decoder(self) -> PreTrainedModel:
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's token embeddings."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's output matrix."""
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.decoder.set_output_embeddings(new_embeddings)

    def freeze_encoder(self) -> None:
        """Stop training the encoder's pretrained parameters."""
        self._freeze("encoder.")

    def freeze_decoder(self) -> None:
        """Stop training the decoder's pretrained parameters; its cross-attention and fresh parts still train."""
        self._freeze("decoder.")

    def _freeze(self, prefix: str) -> None:
        new = self.new_parameter_names()
        for name, parameter in self.named_parameters():
            if name.startswith(prefix) and name not in new:
                parameter.requires_grad_(False)

    def resize_token_embeddings(  # type: ignore[override]
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        half: str | None = None,
    ) -> nn.Module:
        """Resize ``half`` (``encoder``, ``decoder``; None: both), and the decoder's output matrix; see ``resizing``."""
        return resize_token_embeddings(self, half, new_num_tokens, pad_to_multiple_of, mean_resizing)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        reason = NO_GRADIENT_CHECKPOINTING.get(self.config.decoder.model_type)
        if reason:
            raise ValueError(f"No gradient checkpointing with a {self.config.decoder.model_type} decoder: {reason}.")
        super().activation_checkpointing_enable(*args, **kwargs)

    # --- sharing ---------------------------------------------------------------------------------------------------

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Parameters that equal another, in the joint model's names: the halves' own ties and ours across them."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        across = sharing_map(self.config, self.encoder, self.decoder)
        known = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        recorded = (self.config.tied_parameters or {}).items()
        return across | {name: equal for name, equal in recorded if {name, equal} <= known}

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write weights, config and generation config; ``push_to_hub=True`` uploads them.

        Parameters shared by the halves are recorded in the config and written under both names, so that transformers'
        own class, which knows no sharing, still loads the right values.
        """
        sync_special_ids(self.config, self.generation_config)
        shared = shared_across_halves(self)
        self.config.tied_parameters = shared or None
        if shared and kwargs.get("state_dict") is None:
            state = self.state_dict()
            kwargs["state_dict"] = {
                name: tensor.clone() if name in shared else tensor for name, tensor in state.items()
            }
        super().save_pretrained(save_directory, *args, **kwargs)

    # --- forward ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple:
        """Encode the source, decode the target, and with ``labels`` compute the loss.

        Args:
            input_ids: (B, S) source ids, or ``inputs_embeds`` (B, S, H), or ``encoder_outputs``.
            attention_mask: (B, S), 0 at padding on either side; left out, it is inferred from the encoder's pad id.
            decoder_input_ids: (B, T), or ``decoder_inputs_embeds``; left out, they are the labels shifted right.
            labels: (B, T), -100 where there is none. The loss is the mean over label positions in float32.
            num_items_in_batch: label positions of the whole optimizer step; the loss is then the sum divided by it.
            cache: what the decoder has seen so far; ``past_key_values`` is its older name.
            kwargs: ``decoder_*`` go to the decoder without the prefix, all others to the encoder.

        Raises:
            TypeError: a keyword that the submodel it goes to does not know.

        Returns:
            ``Seq2SeqLMOutput`` with logits (B, T, V), or a tuple where ``return_dict`` is False.
        """
        outputs = requested_outputs(self, output_attentions, output_hidden_states)
        warn_of_copied_labels(self, decoder_input_ids, labels)
        past = one_cache(cache, past_key_values)
        encoder_kwargs, decoder_kwargs = split_kwargs(self, kwargs)

        if attention_mask is None and input_ids is not None:
            attention_mask = infer_source_mask(input_ids, self.config.encoder)
        attention_mask = mask_of_batch(attention_mask, input_ids, inputs_embeds, (encoder_outputs or (None,))[0])
        if encoder_outputs is None:
            encoder_outputs = self._encode(input_ids, attention_mask, inputs_embeds, **encoder_kwargs, **outputs)
        elif isinstance(encoder_outputs, tuple):
            encoder_outputs = BaseModelOutput(*encoder_outputs)

        callers_mask = decoder_attention_mask
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if callers_mask is None:
                decoder_attention_mask = mask_of_shifted(labels)
        if decoder_input_ids is not None and callers_mask is None:
            positions = decoder_positions(self.config, decoder_input_ids, decoder_attention_mask, past)
            decoder_kwargs = positions | decoder_kwargs

        decoded = self._decode(
            self._project(encoder_outputs[0]),
            attention_mask,
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            cache=past,
            **decoder_kwargs,
            **outputs,
        )
        crosses = decoded.get("cross_attentions")  # transformers may record them before FoldBeams unfolds them
        result = Seq2SeqLMOutput(
            loss=None if labels is None else cross_entropy(decoded.logits, labels, num_items_in_batch),
            logits=decoded.logits,
            decoder_hidden_states=decoded.get("hidden_states"),
            decoder_attentions=decoded.get("attentions"),
            cross_attentions=crosses and tuple(weights_by_row(weights, decoded.logits.shape[0]) for weights in crosses),
            encoder_last_hidden_state=encoder_outputs[0],
            encoder_hidden_states=encoder_outputs.get("hidden_states"),
            encoder_attentions=encoder_outputs.get("attentions"),
            **{CACHE_NAMES[0]: cache_of(decoded)},
        )
        if return_dict is None:
            return_dict = self.config.return_dict
        return result if return_dict else result.to_tuple()

    def _decode(self, source_BSH: Tensor | None, source_mask_BS: Tensor | None, **kwargs: Any) -> Any:
        kwargs = {name: value for name, value in kwargs.items() if value is not None} | {"return_dict": True}
        kwargs = kwargs_for_decoder(self.decoder, kwargs)
        if source_BSH is None or not self._call.reads_source:
            return self.decoder(**kwargs)
        source_mask_BS = mask_of_sources(source_mask_BS, source_BSH.shape[0])
        if self.config.graft is None:
            return self.decoder(encoder_hidden_states=source_BSH, encoder_attention_mask=source_mask_BS, **kwargs)
        with self._call.during(source=Source(source_BSH, source_mask_BS)):
            return self.decoder(**kwargs)

    def _encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        kwargs = self._accepted_by_encoder(kwargs)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds, **kwargs}
        inputs = {name: value for name, value in inputs.items() if value is not None}
        if "use_cache" in inspect.signature(self.encoder.forward).parameters:
            inputs["use_cache"] = False  # nothing is generated here, and Switch Transformers' encoder refuses a cache
        if self.config.encoder.model_type in ("longformer", "led") and "global_attention_mask" not in inputs:
            inputs["global_attention_mask"] = global_first_token(inputs)
        return encode_right_padded(self.encoder, inputs, attention_mask)

    @property
    def _needs_projection(self) -> bool:
        decoder = self.config.decoder
        return (
            states_width(self.config.encoder) != decoder.hidden_size
            and getattr(decoder, "cross_attention_hidden_size", None) is None
        )

    def _project(self, hidden_BSH: Tensor) -> Tensor:
        # Longformer hands out a slice; GPT-2 views it.
        return self.enc_to_dec_proj(hidden_BSH) if self._needs_projection else hidden_BSH.contiguous()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, T) shifted right behind the start token.

        Raises:
            ValueError: the start or pad id is set neither in ``config`` nor in ``generation_config``.
        """
        ids = {name: self._special_id(name) for name in ("pad_token_id", "decoder_start_token_id")}
        return shift_right(labels, **ids)

    def _special_id(self, name: str) -> int:
        value = getattr(self.config, name)
        if value is None:
            value = getattr(self.generation_config, name)
        if value is None:
            raise ValueError(f"Make sure to set the {name} attribute of the model's configuration.")
        return value[0] if isinstance(value, list) else value


register(EncoderDecoderModel)
