"""Generation with two vocabularies: ``GenerationMixin`` takes the source's pad id from the encoder.

Shapes: B batch, S source length, T target length.
"""

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from warmstart import cpu
from warmstart.compat.transformers import attention_of
from warmstart.model.cache_names import CACHE_NAMES, cache_of, one_cache
from warmstart.model.call_state import CallState, EncodedSource
from warmstart.model.compiling import uncompiled
from warmstart.model.configuration import SPECIAL_IDS, EncoderDecoderConfig, sync_special_ids
from warmstart.model.encoders import states_width
from warmstart.model.generation.beam_search import LENGTH_PENALTIES, decode
from warmstart.model.generation.source_cache import SourceCache
from warmstart.model.generation.source_options import (
    WITHOUT_SOURCE,
    chosen_source_options,
    option,
    refuse_options_in_config,
    source_arguments,
)
from warmstart.model.padding import POSITIONS_AFTER_PAD, infer_source_mask, mask_of_batch, positions_after_pad
from warmstart.model.windows import flat_mask

# Arguments of generate that an encoder's forward takes too, but that do not concern the encoder.
_NOT_FOR_ENCODER = ("use_cache", "output_attentions", "output_hidden_states", "return_dict", "labels", *CACHE_NAMES)

_TARGETS = ("decoder_input_ids", "decoder_inputs_embeds")
_FIRST_TOKEN = ("decoder_start_token_id", "bos_token_id")

# Number of beams from which a decoder's cache gives wrong results (transformers 5.23 and 5.24): RWKV's ids depend on
# it, xLSTM's cannot be reordered, and the linear attention's part of MiniMax' is not reordered. RecurrentGemma keeps
# its state in its modules, where it is not reordered and other threads overwrite it.
_NO_CACHE_FROM_BEAMS = {"rwkv": 1, "recurrent_gemma": 1, "xlstm": 2, "minimax": 2}

_log = logging.getLogger(__name__)
_exchange_lock = threading.RLock()


@contextmanager
def _exchanged_config(decoder: Any, generation_config: Any) -> Iterator[None]:
    """Set the decoder's generation config within the context; other threads wait."""
    with _exchange_lock:
        own = decoder.generation_config
        decoder.generation_config = generation_config
        try:
            yield
        finally:
            decoder.generation_config = own


class PairGeneration(PreTrainedModel, GenerationMixin):
    """``GenerationMixin`` for a source and a target with different special ids.

    The joint model inherits from it and defines the attributes declared here.
    """

    config: EncoderDecoderConfig
    encoder: PreTrainedModel
    decoder: PreTrainedModel
    _call: CallState
    _encode: Callable[..., BaseModelOutput]
    _project: Callable[[Tensor], Tensor]
    _special_id: Callable[[str], int]

    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """Generate targets, as transformers' ``generate`` does.

        The special ids come from ``config``, and the source's padding is inferred from the encoder's pad id.

        Args:
            inputs: (B, S) source ids, or (B, windows, S).
            generation_config: Options of the generation. Default: ``model.generation_config``.
            **kwargs: Options of the generation, and arguments of ``forward``. ``length_penalty_kind`` is
                ``transformers`` or ``gnmt`` (see ``LENGTH_PENALTIES``).

        Returns:
            Ids (B x ``num_return_sequences``, T), starting with ``start_length`` start and prompt ids; see
            ``return_dict_in_generate``.

        Raises:
            ValueError: An option is set where ``generate`` does not read it, or needs one vocabulary for both
                submodels, or is not supported.
        """
        refuse_options_in_config(self.config, generation_config)
        sync_special_ids(self.config, self.generation_config)
        if generation_config is not None:
            for name in SPECIAL_IDS:
                if getattr(generation_config, name) is None:
                    kwargs.setdefault(name, getattr(self.generation_config, name))
        if "cache" in kwargs:
            past = one_cache(kwargs.pop("cache"), kwargs.pop("past_key_values", None))
            kwargs[CACHE_NAMES[0]] = past
        of_source = chosen_source_options(self, generation_config, kwargs)
        kwargs = self._accepted_by_encoder(kwargs)
        ids = kwargs.get("input_ids") if inputs is None else inputs
        if ids is not None and ids.dim() == 3 and not ids.is_floating_point():
            inputs, kwargs = None, self._with_windows_encoded(ids, of_source, kwargs)
            of_source = {}
        encoded = kwargs.get("encoder_outputs") or (None,)
        given = inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds"), encoded[0]
        if (mask := mask_of_batch(kwargs.get("attention_mask"), *given)) is not None:
            kwargs["attention_mask"] = mask
        if self.config.prompt_ids and all(kwargs.get(name) is None for name in _TARGETS):
            sources = next(len(one) for one in given if one is not None)
            start = option("decoder_start_token_id", None, self, generation_config, kwargs)
            kwargs["decoder_input_ids"] = self._first_ids(sources, start)
        penalty = self._length_penalty_kind(generation_config, kwargs)
        if self.config.graft is not None:
            with uncompiled(self), cpu.decoding(self), self._call.during(length_penalty_kind=penalty):
                return self._generate_grafted(inputs, generation_config, kwargs, of_source)
        if all(option(name, None, self, generation_config, kwargs) is None for name in _FIRST_TOKEN):
            self._special_id("decoder_start_token_id")  # its error shows how to set it, unlike that of transformers
        chosen = option("cache_implementation", None, self, generation_config, kwargs)
        flex = attention_of(self.decoder.config) == "flex_attention"  # its masks are made per sequence, not per source
        shares_source = chosen in (None, "dynamic") and not flex
        if not shares_source:
            by = "flex_attention" if flex else f"cache_implementation={chosen}"
            _log.info("With %s the source's keys and values are stored once per beam instead of once per source.", by)
        call = self._call.during(shares_source=shares_source, length_penalty_kind=penalty)
        with call, uncompiled(self), cpu.decoding(self):
            return super().generate(inputs, generation_config=generation_config, **kwargs)

    @torch.no_grad()
    def _with_windows_encoded(self, ids_BWS: Tensor, of_source: dict[str, Any], kwargs: dict[str, Any]) -> Any:
        """Return the arguments of ``generate`` with the states of all windows in place of their ids (B, W, S)."""
        mask_BWS = kwargs.get("attention_mask")
        if mask_BWS is None:
            mask_BWS = infer_source_mask(ids_BWS, self.config.encoder)
        mask_BWS = torch.ones_like(ids_BWS) if mask_BWS is None else mask_BWS
        kwargs = {name: value for name, value in kwargs.items() if name != "input_ids"}
        kwargs |= source_arguments(of_source, ids_BWS.flatten(1), kwargs)
        of_encoder = {name: kwargs.pop(name) for name in ("token_type_ids",) if name in kwargs}
        return kwargs | {
            "encoder_outputs": self._encode(ids_BWS, mask_BWS, **of_encoder),
            "attention_mask": flat_mask(mask_BWS),
        }

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        return decode(self, *args, **kwargs)

    def _beam_search(self, *args: Any, **kwargs: Any) -> Any:
        return decode(self, *args, **kwargs | {"length_penalty_kind": self._call.length_penalty_kind})

    @torch.no_grad()
    def _generate_grafted(
        self, inputs: Tensor | None, generation_config: Any, kwargs: dict[str, Any], of_source: dict[str, Any]
    ) -> Any:
        """Run the decoder's own ``generate`` while the grafted layers read the source."""
        mask_BS = kwargs.pop("attention_mask", None)
        taken = inspect.signature(self.encoder.forward).parameters
        of_encoder = {name: kwargs.pop(name) for name in list(kwargs) if name in taken and name not in _NOT_FOR_ENCODER}
        encoded = kwargs.pop("encoder_outputs", None)
        if encoded is None:
            if inputs is not None:
                of_encoder["inputs_embeds" if inputs.is_floating_point() else "input_ids"] = inputs
            if mask_BS is None and "input_ids" in of_encoder:
                mask_BS = infer_source_mask(of_encoder["input_ids"], self.config.encoder)
            encoded = self._encode(attention_mask=mask_BS, **of_encoder)
        kwargs |= source_arguments(of_source, of_encoder.get("input_ids"), kwargs)
        source = EncodedSource(self._project(encoded[0]), mask_BS, kept={})
        ids, mask = kwargs.pop("decoder_input_ids", None), kwargs.pop("decoder_attention_mask", None)
        start = option("decoder_start_token_id", None, self, generation_config, kwargs)
        kwargs.pop("decoder_start_token_id", None)
        if ids is None:
            ids = self._start_ids(len(source.states_BSE), start)
        elif start is not None:
            ids, mask = self._with_start(ids, mask, start)
        mask = torch.ones_like(ids) if mask is None else mask
        with self._call.during(source=source):
            return self._generate_by_decoder(ids, mask, generation_config, kwargs, drop_sources=source.drop)

    def _generate_by_decoder(
        self, ids: Tensor, mask: Tensor, generation_config: Any, kwargs: dict[str, Any], drop_sources: Any = None
    ) -> Any:
        """Run the decoder's own ``generate`` with this model's generation config.

        Options of the pretrained decoder, such as its temperature, must not apply. Another joint model may use the same
        decoder, so a lock is held until ``generate`` has read the options, before the search starts.
        """
        kind = self.config.decoder.model_type
        beams = option("num_beams", 1, self, generation_config, kwargs)
        if beams >= _NO_CACHE_FROM_BEAMS.get(kind, beams + 1):
            _log.info(
                "A %s decoder with %d beams generates without its cache, which would give wrong ids.", kind, beams
            )
            kwargs = kwargs | {"use_cache": False}
        if kind in POSITIONS_AFTER_PAD:  # the decoder's generate would count from 0
            kwargs = kwargs | {"position_ids": positions_after_pad(mask.long(), self.config.decoder.pad_token_id)}
        with ExitStack() as exchanged:
            exchanged.enter_context(_exchanged_config(self.decoder, self.generation_config))
            if kwargs.get("assistant_model") is None and kwargs.get("custom_generate") is None:
                given: dict[str, Any] = {"drop_sources": drop_sources}
                given["length_penalty_kind"] = self._call.length_penalty_kind
                given |= {name: kwargs[name] for name in ("synced_gpus", "streamer") if kwargs.get(name) is not None}

                def search(*args: Any, **options: Any) -> Any:
                    exchanged.close()
                    return decode(*args, **given | options)

                kwargs = kwargs | {"custom_generate": search}
            decoder: Any = self.decoder  # a causal language model: GenerationMixin's method
            return decoder.generate(ids, attention_mask=mask, generation_config=generation_config, **kwargs)

    def generate_alone(self, **kwargs: Any) -> Any:
        """Generate one sequence of ids (1, T) without a source; cross-attention is skipped.

        Args:
            **kwargs: Options of ``generate``.

        Raises:
            ValueError: An option is set where ``generate`` does not read it.
        """
        refuse_options_in_config(self.config, kwargs.get("generation_config"))
        kwargs |= WITHOUT_SOURCE
        if self.config.graft is not None:
            sync_special_ids(self.config, self.generation_config)
            ids = self._first_ids(1)
            generation_config = kwargs.pop("generation_config", None)
            penalty = self._length_penalty_kind(generation_config, kwargs)
            with uncompiled(self), self._call.during(source=None, length_penalty_kind=penalty):
                return self._generate_by_decoder(ids, torch.ones_like(ids), generation_config, kwargs)
        shape = (1, 1, states_width(self.config.encoder))
        nothing = torch.zeros(shape, device=self.decoder.device, dtype=self.decoder.dtype)
        with self._call.during(reads_source=False):
            return self.generate(encoder_outputs=BaseModelOutput(nothing), attention_mask=nothing[..., 0], **kwargs)

    def _length_penalty_kind(self, generation_config: Any, kwargs: dict[str, Any]) -> str:
        """Take ``length_penalty_kind`` out of the arguments of ``generate``, which transformers does not know."""
        kind: str = option("length_penalty_kind", "transformers", self, generation_config, kwargs)
        kwargs.pop("length_penalty_kind", None)
        if kind not in LENGTH_PENALTIES:
            raise ValueError(f"length_penalty_kind={kind!r} is unknown. Set one of {', '.join(LENGTH_PENALTIES)}.")
        return kind

    def _start_ids(self, sources: int, start: int | list[int] | None = None) -> Tensor:
        """Return the start ids (B, 1); a list has one for all sources, or one for each."""
        start = self._special_id("decoder_start_token_id") if start is None else start
        if isinstance(start, list) and len(start) not in (1, sources):
            raise ValueError(
                f"decoder_start_token_id has {len(start)} ids for {sources} sources. Pass one id, or one for each."
            )
        return torch.tensor(start, device=self.decoder.device).reshape(-1, 1).expand(sources, 1)

    def _first_ids(self, sources: int, start: int | list[int] | None = None) -> Tensor:
        """Return the start and prompt ids (B, ``start_length``)."""
        start_B1 = self._start_ids(sources, start)
        prompt = torch.tensor(self.config.prompt_ids or [], device=start_B1.device, dtype=start_B1.dtype)
        return torch.cat([start_B1, prompt.expand(sources, -1)], dim=1)

    @property
    def start_length(self) -> int:
        """Number of ids with which everything generated begins: the start id and ``config.prompt_ids``."""
        return 1 + len(self.config.prompt_ids or [])

    def _with_start(self, prompt: Tensor, mask: Tensor | None, start: int | list[int]) -> tuple[Tensor, Tensor | None]:
        """Put the start token before prompts (B, T), unless one starts with it already; as transformers does."""
        start_ids = self._start_ids(len(prompt), start)
        if (prompt[:, :1] == start_ids).any():
            return prompt, mask
        mask = mask if mask is None else torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        return torch.cat([start_ids, prompt], dim=1), mask

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any], model_input_name: str | None, generation_config: Any
    ) -> dict[str, Any]:
        if model_kwargs.get("attention_mask") is None and not inputs_tensor.is_floating_point():
            # generate infers this mask only for decoder-only models; without it padding would be read as text.
            model_kwargs["attention_mask"] = infer_source_mask(inputs_tensor, self.config.encoder)
        skipped = ("decoder_", "cross_attn", "use_cache", *CACHE_NAMES)
        kwargs = {name: value for name, value in model_kwargs.items() if not name.startswith(skipped)}
        kwargs[model_input_name or self.main_input_name] = inputs_tensor
        kwargs["output_attentions"] = generation_config.output_attentions
        kwargs["output_hidden_states"] = generation_config.output_hidden_states
        model_kwargs["encoder_outputs"] = self._encode(**kwargs)
        return model_kwargs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **model_kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeat the target for beams and samples, but not the encoder states, which they share."""
        expand: Any = super()._expand_inputs_for_generation  # type: ignore[misc]
        encoded = model_kwargs.pop("encoder_outputs", None) if self._call.shares_source else None
        if encoded is None:
            both: tuple[Any, dict[str, Any]] = expand(expand_size, is_encoder_decoder, input_ids, **model_kwargs)
            return both
        # Not as an encoder-decoder: transformers would look for encoder_outputs to repeat.
        input_ids, model_kwargs = expand(expand_size, False, input_ids, **model_kwargs)
        return input_ids, model_kwargs | {"encoder_outputs": encoded}

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any) -> Any:
        prepare: Any = super()._prepare_cache_for_generation  # type: ignore[misc]
        prepared = prepare(generation_config, model_kwargs, *args)
        cache = cache_of(model_kwargs)
        if self._call.shares_source and isinstance(cache, EncoderDecoderCache) and not any(cache.is_updated.values()):
            cache.cross_attention_cache = SourceCache()
        return prepared

    def _accepted_by_encoder(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Drop ``token_type_ids``, which tokenizers return, if the encoder does not take them (DistilBERT)."""
        if "token_type_ids" in inspect.signature(self.encoder.forward).parameters:
            return kwargs
        return {name: value for name, value in kwargs.items() if name != "token_type_ids"}
