"""A sequence-to-sequence model made of any encoder and any decoder (Rothe et al. 2020).

    EncoderDecoderModel.from_encoder_decoder_pretrained("google-bert/bert-base-uncased", "openai-community/gpt2")

Names, arguments, outputs and state-dict keys are those of ``transformers.EncoderDecoderModel``. Results are equal where
that class is correct, and either class loads the other's checkpoints. docs/design/model.md lists the differences.
Importing this module registers the class with transformers' auto classes (``warmstart.model.auto_classes``).

Shapes: B batch, S source length, T target length, H hidden size, V decoder vocabulary, N label positions.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from warmstart import cpu
from warmstart.compat.transformers import attention_of, from_config, set_attention
from warmstart.model.activations import fuse_activations
from warmstart.model.adapters import hub_arguments, skip_adapter
from warmstart.model.auto_classes import register
from warmstart.model.bridge.cross_attention import CrossAttention
from warmstart.model.bridge.grafting import graft, initialize, kwargs_for_decoder
from warmstart.model.bridge.lora import add_lora, is_lora, name_without_lora
from warmstart.model.bridge.tying import keep_pretrained, shared_across_halves, sharing_map
from warmstart.model.cache_names import CACHE_NAMES, cache_of, one_cache
from warmstart.model.call_checks import requested_outputs, to_resize, warn_of_copied_labels, warn_without_dropout
from warmstart.model.call_state import CallState, EncodedSource
from warmstart.model.configuration import EncoderDecoderConfig, sync_special_ids, use_config
from warmstart.model.decoders import (
    NO_GRADIENT_CHECKPOINTING,
    check_causal,
    check_cross_attention,
    check_hidden_sizes,
    cross_attention_modules,
    decoder_class,
    drop_own_cross_attention,
)
from warmstart.model.encoders import build_encoder, check_encoder, drop_pooler, encoder_class, states_width
from warmstart.model.generation.mixin import PairGeneration
from warmstart.model.generation.source_cache import FoldBeams, mask_of_sources, unfold_weights
from warmstart.model.keywords import split_kwargs
from warmstart.model.loading import Submodels, load_submodels
from warmstart.model.loss import (
    IGNORED,
    Head,
    LabelStates,
    TrainingLoss,
    cross_entropy,
    label_states,
    lm_head,
    summed_loss,
)
from warmstart.model.padding import (
    after_prompt,
    decoder_positions,
    infer_source_mask,
    inputs_of_labels,
    mask_of_batch,
    mask_of_shifted,
    shift_right,
)
from warmstart.model.soft_targets import SoftTargets
from warmstart.model.special_ids import special_id
from warmstart.model.state_in_modules import serve_one_thread
from warmstart.model.weight_index import check_weight_index
from warmstart.model.windows import encode_windows, flat_mask

_BRIDGE = ("enc_to_dec_proj.", "cross_attention.")


class EncoderDecoderModel(PairGeneration):
    """An encoder and a decoder joined by the decoder's cross-attention.

    Build it from a ``config`` (untrained), from ``encoder`` and ``decoder`` objects, with
    ``from_encoder_decoder_pretrained`` (two checkpoints), or with ``from_pretrained`` (a checkpoint of this model).

    Args:
        config: The joint configuration. Default: made from the configs of ``encoder`` and ``decoder``.
        encoder: The encoder, without an LM head. Default: built from ``config``, untrained.
        decoder: The decoder. Default: built from ``config``, untrained.
        check_decoder: Run ``decoder`` once, on six tokens, to check that it is causal.

    Raises:
        ValueError: There is neither a config nor both submodels, or the config has another type. A model type cannot be
            encoder or decoder, the decoder object has no cross-attention or is not causal, or the encoder object has an
            LM head or was built with ``is_decoder=True``. Or ``cross_attention_hidden_size`` differs from the
            encoder's hidden size.
    """

    config_class = EncoderDecoderConfig
    base_model_prefix = "encoder_decoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _keys_to_ignore_on_load_unexpected = [r"^encoder\.pooler\."]  # noqa: RUF012 - the base class' protocol
    labels_are_of_source = False
    """Whether labels belong to the sentences of one source, so that no likelihood is defined without it."""
    _new_parameters: set[str] | None = None
    """Names of the parameters that no checkpoint contained; None if the model was not warm-started."""

    def __init__(
        self,
        config: EncoderDecoderConfig | None = None,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
        *,
        check_decoder: bool = True,
    ):
        if config is None:
            if encoder is None or decoder is None:
                raise ValueError("EncoderDecoderModel needs a config, or both an encoder and a decoder.")
            config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        elif not isinstance(config, self.config_class):
            raise ValueError(f"config is a {type(config).__name__}. Use {self.config_class.__name__}.")
        decoder_class(config.decoder)
        encoder_class(config.encoder)
        check_hidden_sizes(config)
        if decoder is not None and config.graft is None and type(config) is EncoderDecoderConfig:
            check_cross_attention(decoder)
        if encoder is not None:
            check_encoder(encoder)
        if decoder is not None and check_decoder:
            check_causal(decoder)
        super().__init__(config)

        encoder = build_encoder(config.encoder) if encoder is None else drop_pooler(encoder)
        if decoder is None:
            decoder = from_config(decoder_class(config.decoder), config.decoder)
        self.encoder, self.decoder = encoder, decoder
        for submodel, its_config in ((encoder, config.encoder), (decoder, config.decoder)):
            set_attention(its_config, attention_of(submodel.config))
            use_config(submodel, its_config)
            fuse_activations(submodel)
            serve_one_thread(submodel)

        # Cross-attention multiplies states of both submodels, so both use the wider of the two dtypes.
        dtype = torch.promote_types(encoder.dtype, decoder.dtype)
        for submodel in (encoder, decoder):
            if submodel.dtype != dtype:
                submodel.to(dtype)  # type: ignore[arg-type]
        if self._needs_projection:
            self.enc_to_dec_proj = nn.Linear(states_width(config.encoder), config.decoder.hidden_size, dtype=dtype)
        self.head_kind: Head | None = None
        self._drops_lean = False
        self._call = CallState()
        if config.graft is not None:
            drop_own_cross_attention(decoder)
            drop_pooler(decoder.base_model)  # BigBird's causal language model has one
            # A child of the joint model, so that the decoder's state-dict keys do not change.
            self.cross_attention = graft(decoder, config.graft, config.decoder.hidden_size, self._call)
            self.cross_attention.to(dtype)
        else:
            FoldBeams.attach(cross_attention_modules(decoder).values())
        self.post_init()
        if config.lora is not None:
            add_lora(self, config.lora)  # after initialization: adapters start without effect

    def initialize_weights(self) -> None:
        """Initialize the parameters and buffers that no checkpoint contained."""
        # transformers treats this class as custom code and skips modules without direct parameters, such as
        # FalconH1Model, which fills the buffers of its layers. Called on the submodels, it skips none.
        self.encoder.initialize_weights()
        self.decoder.initialize_weights()
        super().initialize_weights()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CrossAttention):
            initialize(module)

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | None = None,
        decoder_pretrained_model_name_or_path: str | None = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> "EncoderDecoderModel":
        """Warm-start from two checkpoints.

        Args:
            encoder_pretrained_model_name_or_path: Hub id or folder of the encoder.
            decoder_pretrained_model_name_or_path: Hub id or folder of the decoder.
            model_args: Passed to the encoder's ``from_pretrained``, as transformers does.
            kwargs: Arguments with the prefix ``encoder_`` or ``decoder_`` go to that submodel: to its config if the
                config has this field, else to its ``from_pretrained``. ``encoder_model``, ``decoder_model``,
                ``encoder_config`` and ``decoder_config`` take objects. Without a prefix, ``dtype``,
                ``attn_implementation``, ``revision``, ``cache_dir``, ``local_files_only`` and ``token`` go to both
                submodels; all other arguments set fields of the joint config. Special ids that are not given come from
                the decoder's tokenizer, or from its config.

        Returns:
            The joint model in evaluation mode.

        Raises:
            ValueError: A submodel is missing or unsupported. Configs are checked before any weight is loaded.
            TypeError: An argument is unknown to both submodels and to the joint config.
        """
        submodels, joint = load_submodels(
            encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path, kwargs, model_args
        )
        return cls.from_submodels(submodels, joint)

    @classmethod
    def from_submodels(cls, submodels: Submodels, joint: dict[str, Any]) -> "EncoderDecoderModel":
        """Join a loaded encoder and a loaded decoder.

        Args:
            submodels: Both submodels, and the names of the parameters that their checkpoints did not contain. A shared
                parameter takes its value from the checkpoint that contains it.
            joint: Fields of the joint config.

        Returns:
            The joint model in evaluation mode.

        Raises:
            ValueError: The encoder and the decoder do not fit together.
        """
        encoder, decoder = submodels.encoder, submodels.decoder
        config = cls.config_class.from_encoder_decoder_configs(encoder.config, decoder.config, **joint)
        untrained = {f"encoder.{name}" for name in submodels.encoder_missing}
        untrained |= {f"decoder.{name}" for name in submodels.decoder_missing}
        keep_pretrained(config, encoder, decoder, untrained)
        model = cls(config=config, encoder=encoder, decoder=decoder, check_decoder=submodels.decoder_is_callers)
        model.eval()
        bridge = {name for name, _ in model.named_parameters() if name.startswith(_BRIDGE)}
        model._new_parameters = untrained | bridge
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint of a joint model; the arguments are those of transformers' ``from_pretrained``.

        An adapter in the folder of a complete checkpoint is not loaded, and a warning is logged.

        Raises:
            UserError: The index of a local checkpoint's weights is corrupt, or names files outside its folder.
        """
        check_weight_index(pretrained_model_name_or_path, hub_arguments(kwargs))
        kwargs |= skip_adapter(pretrained_model_name_or_path, hub_arguments(kwargs))
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    # --- encoder and decoder ---------------------------------------------------------------------------------------

    def get_encoder(self, *args: Any, **kwargs: Any) -> PreTrainedModel:
        """Return the encoder; arguments, which transformers passes, are ignored."""
        return self.encoder

    def get_decoder(self) -> PreTrainedModel:
        """Return the decoder."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the decoder's LM head."""
        lm_head: nn.Module = self.decoder.get_output_embeddings()
        return lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the decoder's LM head."""
        self.decoder.set_output_embeddings(new_embeddings)

    def freeze_encoder(self) -> None:
        """Freeze the encoder's pretrained parameters."""
        self._freeze("encoder.")

    def freeze_decoder(self) -> None:
        """Freeze the decoder's pretrained parameters; new ones, such as cross-attention, still train."""
        self._freeze("decoder.")

    def _freeze(self, prefix: str) -> None:
        new = self.new_parameter_names()
        for name, parameter in self.named_parameters():
            if name.startswith(prefix) and name not in new:
                parameter.requires_grad_(False)

    def new_parameter_names(self) -> set[str]:
        """Return the names of the parameters that no pretrained checkpoint contained.

        They belong to cross-attention, the projection, adapters, and to an untrained LM head or submodel. A parameter
        that both submodels share is new if neither checkpoint contained it. For a model that was not warm-started, the
        result is the parameters of cross-attention, projection and adapters.
        """
        trainable = dict(self.named_parameters())
        adapters = {name for name in trainable if is_lora(name)}
        if self._new_parameters is None:
            bridge = (*(f"decoder.{name}." for name in cross_attention_modules(self.decoder)), *_BRIDGE)
            return {name for name in trainable if name.startswith(bridge)} | adapters
        shared = shared_across_halves(self)
        new, given = self._new_parameters, {name: name_without_lora(name) for name in trainable}
        return {name for name, own in given.items() if {own, shared.get(own, own)} <= new} | adapters

    def mark_new(self, prefix: str) -> None:
        """Mark every parameter whose name starts with ``prefix`` as new, for a submodel that was built untrained."""
        names = [name for name, _ in self.named_parameters(remove_duplicate=False) if name.startswith(prefix)]
        known = self.new_parameter_names() if self._new_parameters is None else self._new_parameters
        self._new_parameters = known | {name_without_lora(name) for name in names}

    def resize_token_embeddings(  # type: ignore[override]
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        submodel: str | None = None,
    ) -> nn.Module:
        """Resize the token embeddings of one submodel, or of both if their vocabularies have the same size.

        The decoder's LM head is resized with its embeddings. Shared parameters stay shared: shared embeddings are
        resized in both submodels.

        Args:
            new_num_tokens: New vocabulary size; None keeps the current size.
            pad_to_multiple_of: Round the size up to a multiple of this number.
            mean_resizing: Draw new embeddings from the distribution of the old ones.
            submodel: ``encoder``, ``decoder``, or None for both.

        Returns:
            The resized embeddings; the decoder's if both were resized.

        Raises:
            ValueError: ``submodel`` is another value, or is None although the vocabulary sizes differ.
        """
        for one in to_resize(self, submodel, new_num_tokens):
            embeddings: nn.Module = one.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
            if hasattr(one.config, "decoder_vocab_size"):  # from which Marian builds its decoder
                one.config.decoder_vocab_size = one.config.vocab_size
        if self.config.tie_encoder_decoder or self.config.tie_embeddings:
            self.tie_weights()
        return embeddings

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recompute activations in the backward pass instead of storing them.

        Raises:
            ValueError: The decoder's implementation does not support it.
        """
        reason = NO_GRADIENT_CHECKPOINTING.get(self.config.decoder.model_type)
        if reason:
            raise ValueError(f"No gradient checkpointing with a {self.config.decoder.model_type} decoder: {reason}.")
        super().activation_checkpointing_enable(*args, **kwargs)

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
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Encode the source, decode the target, and with ``labels`` compute the loss.

        Args:
            input_ids: (B, S) source ids, or (B, windows, S). Alternatives: ``inputs_embeds``, ``encoder_outputs``.
            attention_mask: As ``input_ids``, 0 at padding on either side. Default: inferred from the encoder's pad id.
            decoder_input_ids: (B, T) target ids. Default: the labels, shifted right.
            decoder_attention_mask: (B, T), 0 at padding. Default: derived from ``labels``.
            encoder_outputs: The encoder's output for this source; the encoder is then not run.
            past_key_values: Older name of ``cache``.
            inputs_embeds: (B, S, H), used instead of ``input_ids``.
            decoder_inputs_embeds: (B, T, H), used instead of ``decoder_input_ids``.
            labels: (B, T), -100 at positions without a label. The loss is the mean over label positions, in float32.
            num_items_in_batch: Number of label positions in the optimizer step; the loss is the sum divided by it.
            use_cache: Return a KV cache for the next step.
            output_attentions: Return the attention weights of all layers.
            output_hidden_states: Return the hidden states of all layers.
            return_dict: False returns a tuple; None follows the config.
            cache: KV cache of the previous positions.
            **kwargs: ``decoder_*`` go to the decoder, without the prefix; all others go to the encoder.

        Returns:
            ``Seq2SeqLMOutput`` with logits (B, T, V), for a prompt too; a tuple if ``return_dict`` is False.

        Raises:
            TypeError: An argument is unknown to the submodel that it goes to.
        """
        outputs = requested_outputs(self, output_attentions, output_hidden_states)
        if labels is not None:
            warn_of_copied_labels(self, decoder_input_ids, labels)
            warn_without_dropout(self)
        past = one_cache(cache, past_key_values)
        encoder_kwargs, decoder_kwargs = split_kwargs(self, kwargs)

        if attention_mask is None and input_ids is not None:
            attention_mask = infer_source_mask(input_ids, self.config.encoder)
        attention_mask = mask_of_batch(attention_mask, input_ids, inputs_embeds, (encoder_outputs or (None,))[0])
        if encoder_outputs is None:
            encoder_outputs = self._encode(input_ids, attention_mask, inputs_embeds, **encoder_kwargs, **outputs)
        elif isinstance(encoder_outputs, tuple):
            encoder_outputs = BaseModelOutput(*encoder_outputs)

        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_attention_mask is None:
                decoder_attention_mask = mask_of_shifted(labels, self.config.prompt_ids)
        if decoder_input_ids is not None:
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
        if labels is not None:
            labels = after_prompt(labels, decoded.logits.shape[1], self.config.prompt_ids)
        # transformers may record these before FoldBeams unfolds them.
        crosses = decoded.get("cross_attentions")
        result = Seq2SeqLMOutput(
            loss=None if labels is None else cross_entropy(decoded.logits, labels, num_items_in_batch),
            logits=decoded.logits,
            decoder_hidden_states=decoded.get("hidden_states"),
            decoder_attentions=decoded.get("attentions"),
            cross_attentions=crosses and tuple(unfold_weights(weights, decoded.logits.shape[0]) for weights in crosses),
            encoder_last_hidden_state=encoder_outputs[0],
            encoder_hidden_states=encoder_outputs.get("hidden_states"),
            encoder_attentions=encoder_outputs.get("attentions"),
            **{CACHE_NAMES[0]: cache_of(decoded)},
        )
        return result if (self.config.return_dict if return_dict is None else return_dict) else result.to_tuple()

    def _decode(self, source_BSH: Tensor | None, source_mask_BS: Tensor | None, **kwargs: Any) -> Any:
        kwargs = {name: value for name, value in kwargs.items() if value is not None} | {"return_dict": True}
        kwargs = kwargs_for_decoder(self.decoder, kwargs)
        if source_BSH is None or not self._call.reads_source:
            return self.decoder(**kwargs)
        source_mask_BS = mask_of_sources(flat_mask(source_mask_BS), source_BSH.shape[0])
        if self.config.graft is None:
            return self.decoder(encoder_hidden_states=source_BSH, encoder_attention_mask=source_mask_BS, **kwargs)
        with self._call.during(source=EncodedSource(source_BSH, source_mask_BS)):
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
        return encode_windows(self.encoder, inputs, attention_mask)

    @property
    def _needs_projection(self) -> bool:
        decoder = self.config.decoder
        return (
            states_width(self.config.encoder) != decoder.hidden_size
            and getattr(decoder, "cross_attention_hidden_size", None) is None
        )

    def _project(self, hidden_BSH: Tensor) -> Tensor:
        # Longformer returns a slice, and GPT-2 calls view() on it.
        return self.enc_to_dec_proj(hidden_BSH) if self._needs_projection else hidden_BSH.contiguous()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shift ``labels`` (B, T) to the right and insert the start token and the prompt of the config.

        Returns:
            Ids (B, P + T) with the P ids of the prompt; -100 becomes the pad id.

        Raises:
            ValueError: The start or pad id is set neither in ``config`` nor in ``generation_config``.
        """
        ids = {name: self._special_id(name) for name in ("pad_token_id", "decoder_start_token_id")}
        return shift_right(labels, **ids, prompt_ids=self.config.prompt_ids)

    def _special_id(self, name: str) -> int:
        return special_id(name, self.config, self.generation_config)

    # --- loss without the full logits ------------------------------------------------------------------------------

    def training_loss(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        buckets: Sequence[Sequence[int]] | None = None,
        soft_targets: SoftTargets | None = None,
    ) -> TrainingLoss:
        """Compute the loss of a training step, faster and in less memory than ``forward(labels=...)``.

        Only label positions go through the LM head, so the full logits are never built. In training mode on a CPU, the
        first call applies ``warmstart.cpu.accelerate``. Dropout masks then differ from those that transformers' class
        draws from the same seed.

        Args:
            input_ids: (B, S) or (B, windows, S) source ids.
            attention_mask: Of the same shape, 0 at padding.
            labels: (B, T), -100 after the end of each target.
            label_smoothing: Share of the probability that is spread evenly over the vocabulary.
            buckets: (number of examples, longest target) of each target-length bucket, in batch order. Buckets are
                decoded one after the other, each with its own padding. Default: one bucket.
            soft_targets: Further terms of the loss: distillation, R-Drop.

        Returns:
            ``summed``, ``nll`` and ``tokens``; the property ``mean`` is the loss per label position.

        Raises:
            ValueError: The start or pad id is not set, or the teacher of ``soft_targets`` has another vocabulary size.
        """
        warn_without_dropout(self)
        if self.training and self.device.type == "cpu" and not self._drops_lean:
            self._drops_lean = True  # only once, so that an attention chosen later is kept
            cpu.accelerate(self)
        batch = input_ids, attention_mask, labels
        if soft_targets is not None:
            return soft_targets.loss(self, *batch, label_smoothing=label_smoothing, buckets=buckets)
        loss, nll_N = summed_loss(self.label_states(*batch, buckets=buckets), *lm_head(self), label_smoothing)
        return TrainingLoss(loss, nll_N.sum(), (labels != IGNORED).sum())

    @torch.no_grad()
    def likelihood(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, *, read_source: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Compute the likelihood of each target.

        Args:
            input_ids: (B, S) or (B, windows, S) source ids.
            attention_mask: Of the same shape, 0 at padding.
            labels: (B, T), -100 after the end of each target.
            read_source: False skips cross-attention and gives the likelihoods of the decoder as a language model.

        Returns:
            Each example's summed negative log-likelihood in nats (B,), and its number of label positions (B,).
        """
        groups = self.label_states(input_ids, attention_mask, labels, read_source=read_source)
        _, nll_N = summed_loss(groups, *lm_head(self), 0.0)
        is_label_BT = labels != IGNORED
        example_N = is_label_BT.nonzero()[:, 0]
        return nll_N.new_zeros(len(labels)).index_add(0, example_N, nll_N), is_label_BT.sum(dim=1)

    def label_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        *,
        read_source: bool = True,
        buckets: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[LabelStates]:
        """Run the model up to its LM head, at label positions; arguments as in the methods above."""
        sizes, lengths = zip(*(buckets or [labels.shape]), strict=True)
        sources: Any = [(None, None)] * len(sizes)
        if read_source:
            states_BSH = self._project(self._encode(input_ids, attention_mask)[0])
            sources = zip(states_BSH.split(sizes), attention_mask.split(sizes), strict=True)
        decoded = []
        for source, labels_BT, length in zip(sources, labels.split(sizes), lengths, strict=True):
            labels_BT = labels_BT[:, :length]
            ids_BT = self.prepare_decoder_input_ids_from_labels(labels_BT)
            inputs = inputs_of_labels(self.config, ids_BT, labels_BT)
            decode = partial(self._decode, *source, **inputs, use_cache=False)
            decoded.append((decode, after_prompt(labels_BT, ids_BT.shape[1], self.config.prompt_ids)))
        return label_states(decoded, *lm_head(self))

    # --- sharing and saving ----------------------------------------------------------------------------------------

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return the shared parameters of the joint model, ``{name: name of the parameter that it equals}``."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        across = sharing_map(self.config, self.encoder, self.decoder)
        known = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        recorded = (self.config.tied_parameters or {}).items()
        return across | {name: equal for name, equal in recorded if {name, equal} <= known}

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write weights, config and generation config; ``push_to_hub=True`` uploads them.

        Parameters that encoder and decoder share are recorded in the config and written under both names, because
        transformers' own class does not share parameters between the submodels.
        """
        sync_special_ids(self.config, self.generation_config)
        shared = shared_across_halves(self)
        self.config.tied_parameters = shared or None
        if shared and kwargs.get("state_dict") is None:
            state = self.state_dict()
            kwargs["state_dict"] = {name: value.clone() if name in shared else value for name, value in state.items()}
        super().save_pretrained(save_directory, *args, **kwargs)


register(EncoderDecoderModel)
