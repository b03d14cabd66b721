"""A model without an encoder: a causal language model reads document, separator and summary as one sequence.

    DecoderOnlyModel.from_pretrained("runs/gpt/export").generate(input_ids, attention_mask=mask)

It is the GPT baseline of Rothe et al. (2020). It has the interface of ``EncoderDecoderModel``, so training, evaluation
and export use it in the same way. The separator is the decoder's start token. The loss is that of the summary. A
document that does not fit into the decoder's positions together with the summary is cut at its end; separator and
summary never are.

Shapes: B batch, S source length, T target length, L length of source, separator and target together.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM, LogitsProcessorList, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import Seq2SeqLMOutput

from warmstart import cpu
from warmstart.config.model import NO_ENCODER
from warmstart.model.compiling import uncompiled
from warmstart.model.configuration import SPECIAL_IDS, EncoderDecoderConfig, sync_special_ids
from warmstart.model.decoders import make_decoder
from warmstart.model.generation.logits_processors import NoRepeatedNGrams
from warmstart.model.generation.source_options import option, refuse_options_in_config
from warmstart.model.generation.word_ngrams import NoRepeatedWordNGrams
from warmstart.model.loss import IGNORED, LabelStates, label_states, lm_head
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.no_encoder import NoEncoderConfig
from warmstart.model.padding import POSITIONS_AFTER_PAD, after_prompt, infer_source_mask, mask_of_batch
from warmstart.model.submodel_config import maximum_positions

# A batch pads shorter prompts on the left. Why these types then compute other logits (transformers 5.23 and 5.24):
_FROM_FIRST_COLUMN = "it numbers positions from the first column, which is padding in a batch"
_READS_PADDING = {
    "rwkv": "it reads the padding before a prompt",
    "xlstm": "it reads the padding before a prompt",
    "recurrent_gemma": "its recurrent layers read the padding before a prompt",
    "deepseek_v4": "it compresses windows that begin at the first column, which is padding in a batch",
    "reformer": "it numbers positions and chunks from the first column, which is padding in a batch",
    "trocr": _FROM_FIRST_COLUMN,
    "xlm": f"{_FROM_FIRST_COLUMN}, and it generates after a mask token",
}


@strict
class DecoderOnlyConfig(EncoderDecoderConfig):
    """Configuration of ``DecoderOnlyModel``: that of a joint model whose decoder has no cross-attention.

    ``encoder`` is made from ``decoder``; ``graft`` and shared parameters do not exist.
    """

    model_type = "warmstart-decoder-only"
    sub_configs_defaults = {  # noqa: RUF012 - the base class' protocol
        "encoder": SubConfigSpec(config_class=AutoConfig, model_type=NO_ENCODER),
        "decoder": SubConfigSpec(config_class=AutoConfig, model_type="gpt2", init_kwargs={"is_decoder": True}),
    }

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.graft = None
        make_decoder(self.decoder, grafted=True)
        text = self.decoder.get_text_config(decoder=True)  # of a decoder that reads images, too
        self.encoder = NoEncoderConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.hidden_size,
            max_position_embeddings=getattr(text, "max_position_embeddings", None),
            pad_token_id=self.pad_token_id,
            bos_token_id=self.decoder_start_token_id,
            eos_token_id=self.eos_token_id,
        )


class DecoderOnlyModel(EncoderDecoderModel):
    """A causal language model that continues a document and a separator with the summary.

    Build it like ``EncoderDecoderModel``: from a ``config``, with ``from_submodels``, or with ``from_pretrained``.

    Raises:
        ValueError: The decoder does not allow padded prompts (such as RoBERTa, XLM, and those of encoder-decoder
            models), or is not causal.
    """

    config_class = DecoderOnlyConfig

    def __init__(
        self,
        config: DecoderOnlyConfig | None = None,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
        *,
        check_decoder: bool = True,
    ) -> None:
        if config is not None and (reason := _reads_padding(config.decoder)):
            raise ValueError(
                f"A {config.decoder.model_type} decoder needs an encoder: {reason}. Use a decoder such as gpt2."
            )
        super().__init__(config, encoder, decoder, check_decoder=check_decoder)

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the decoder's token embeddings, which read the source, too."""
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        """Replace the decoder's token embeddings."""
        self.decoder.set_input_embeddings(value)

    def resize_token_embeddings(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> torch.nn.Module:
        """Resize the decoder's token embeddings, which read the source, too; see ``EncoderDecoderModel``."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        self.config.encoder.vocab_size = embeddings.num_embeddings
        return embeddings

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Compute the loss of summaries, without logits.

        Args:
            input_ids: (B, S) source ids.
            attention_mask: (B, S), 0 at padding on either side. Default: inferred from the pad id.
            labels: (B, T), -100 after the end of each target.
            **kwargs: Not supported.

        Returns:
            The mean loss over label positions.

        Raises:
            ValueError: There are no labels, or other arguments.
        """
        if labels is None or kwargs:
            found = ", ".join(sorted(kwargs)[:10]) or "no labels"
            raise ValueError(
                f"forward of a {type(self).__name__} takes input_ids, attention_mask and labels, but got {found}. "
                "Call its decoder for logits of any sequence."
            )
        mask_BS = self._source_mask(input_ids, attention_mask)
        return Seq2SeqLMOutput(loss=self.training_loss(input_ids, mask_BS, labels).mean)

    def _source_mask(self, ids_BS: Tensor, mask_BS: Tensor | None) -> Tensor:
        mask_BS = infer_source_mask(ids_BS, self.config.encoder) if mask_BS is None else mask_of_batch(mask_BS, ids_BS)
        return torch.ones_like(ids_BS) if mask_BS is None else mask_BS.long()

    def _fitting(self, mask_BS: Tensor, target_B1: Tensor | int) -> Tensor:
        """Mask the end of each source (B, S) that leaves no positions for its target of ``target_B1`` tokens."""
        positions = maximum_positions(self.config.decoder)
        if positions is None:
            return mask_BS
        return mask_BS * (mask_BS.cumsum(dim=1) <= positions - target_B1)

    def label_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        *,
        read_source: bool = True,
        buckets: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[LabelStates]:
        """Run the decoder up to its LM head, at label positions; arguments as in ``training_loss``."""
        ids_BL = self.prepare_decoder_input_ids_from_labels(labels)
        prompt = self.config.prompt_ids
        labels_BL = after_prompt(labels, ids_BL.shape[1], prompt)
        mask_BL = torch.nn.functional.pad((labels != IGNORED).long(), (len(prompt or []), 0), value=1)
        if read_source:
            source_mask_BS = self._fitting(attention_mask.long(), mask_BL.sum(dim=1, keepdim=True))
            ids_BL = torch.cat([input_ids, ids_BL], dim=1)
            mask_BL = torch.cat([source_mask_BS, mask_BL], dim=1)
            labels_BL = torch.cat([torch.full_like(input_ids, IGNORED), labels_BL], dim=1)
        # All padding moves to the end, where no token sees it: positions are those of the sequence by itself.
        longest = int(mask_BL.sum(dim=1).max())
        order_BL = mask_BL.argsort(dim=1, descending=True, stable=True)[:, :longest]
        ids_BL, mask_BL, labels_BL = (one.gather(1, order_BL) for one in (ids_BL, mask_BL, labels_BL))
        decode = partial(self._decode, None, None, input_ids=ids_BL, attention_mask=mask_BL, use_cache=False)
        return label_states([(decode, labels_BL)], *lm_head(self))

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """Generate targets with the decoder's own ``generate``; lengths and blocked n-grams are those of the target.

        Args:
            inputs: (B, S) source ids.
            generation_config: Options of the generation. Default: ``model.generation_config``.
            **kwargs: Options of the generation; ``attention_mask`` (B, S), 0 at padding on either side; and
                ``decoder_input_ids`` with ``decoder_attention_mask`` (B, T), a start of the target.

        Returns:
            Ids (B x ``num_return_sequences``, T), starting with the start token; see ``return_dict_in_generate``.

        Raises:
            ValueError: An option is set where ``generate`` does not read it.
        """
        refuse_options_in_config(self.config, generation_config)
        sync_special_ids(self.config, self.generation_config)
        if generation_config is not None:
            for name in SPECIAL_IDS:
                if getattr(generation_config, name) is None:
                    kwargs.setdefault(name, getattr(self.generation_config, name))
        chosen = partial(option, model=self, generation_config=generation_config, kwargs=kwargs)
        ids_BS: Tensor = kwargs.pop("input_ids", None) if inputs is None else inputs
        mask_BS = self._source_mask(ids_BS, kwargs.pop("attention_mask", None))
        target_BT, target_mask_BT = self._target_start(len(ids_BS), kwargs)
        # Lengths of a joint model count the target only.
        start = target_BT.shape[1]
        new = chosen("max_new_tokens", None)
        new = chosen("max_length", 20) - start if new is None else new
        least = chosen("min_new_tokens", None)
        least = max(chosen("min_length", 0) - start, 0) if least is None else least
        kwargs |= {"max_length": None, "min_length": 0, "max_new_tokens": new, "min_new_tokens": least or None}
        mask_BS = self._fitting(mask_BS, start + new - 1)

        prompt_BL, mask_BL = torch.cat([ids_BS, target_BT], dim=1), torch.cat([mask_BS, target_mask_BT], dim=1)
        order_BL = mask_BL.argsort(dim=1, stable=True)[:, -int(mask_BL.sum(dim=1).max()) :]  # padding on the left
        prompt_BL, mask_BL = prompt_BL.gather(1, order_BL), mask_BL.gather(1, order_BL)
        begin = prompt_BL.shape[1] - start
        if size := chosen("no_repeat_ngram_size", 0):  # the summary may repeat the words of its document
            processors = LogitsProcessorList([*(kwargs.get("logits_processor") or ()), NoRepeatedNGrams(size)])
            kwargs |= {"no_repeat_ngram_size": 0, "logits_processor": processors}
        kwargs["logits_processor"] = _of_target(kwargs.get("logits_processor"), begin)
        penalty = self._length_penalty_kind(generation_config, kwargs)
        if kwargs.get("streamer") is not None:
            kwargs["streamer"] = _OfTarget(kwargs["streamer"], begin)
        with uncompiled(self), cpu.decoding(self), self._call.during(length_penalty_kind=penalty):
            found = self._generate_by_decoder(prompt_BL, mask_BL, generation_config, kwargs)
        if isinstance(found, Tensor):
            return found[:, begin:]
        found.sequences = found.sequences[:, begin:]
        return found

    def _target_start(self, sources: int, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Take the start of the targets from the arguments of ``generate``: ids and mask, each (B, T)."""
        given, mask = kwargs.pop("decoder_input_ids", None), kwargs.pop("decoder_attention_mask", None)
        start = kwargs.pop("decoder_start_token_id", None)
        start = self._special_id("decoder_start_token_id") if start is None else start
        ids_BT = self._first_ids(sources, start)
        if given is not None:
            ids_BT, mask = self._with_start(given, mask, start)
        return ids_BT, torch.ones_like(ids_BT) if mask is None else mask

    def generate_alone(self, **kwargs: Any) -> Any:
        """Generate one sequence of ids (1, T) without a source.

        Args:
            **kwargs: Options of ``generate``.
        """
        nothing = torch.zeros((1, 0), dtype=torch.long, device=self.decoder.device)
        return self.generate(nothing, attention_mask=nothing, **kwargs)


def _reads_padding(config: Any) -> str | None:
    """Return why a decoder of this config does not allow padded prompts; None if it does."""
    if type(config).is_encoder_decoder or config.model_type in POSITIONS_AFTER_PAD:
        return "in a batch it would read the padding before a prompt, or number positions by it"
    if getattr(config, "rotary_value", False):  # of RoFormer; other rotary positions are relative
        return f"with rotary_value {_FROM_FIRST_COLUMN}"
    return _READS_PADDING.get(config.model_type)


def _of_target(processors: Any, begin: int) -> Any:
    """Let processors that block n-grams count those of the target only, which begins at a position."""
    blocking = (NoRepeatedNGrams, NoRepeatedWordNGrams)
    found = [copy(one) if isinstance(one, blocking) else one for one in processors or ()]
    for one in found:
        if isinstance(one, blocking):
            one.begin = begin
    return LogitsProcessorList(found) if found else None


class _OfTarget(BaseStreamer):
    """Passes the ids of the target to a streamer, without the document that the decoder's ``generate`` puts first."""

    def __init__(self, streamer: Any, begin: int) -> None:
        self.streamer, self.skipped = streamer, begin

    def put(self, value: Any) -> None:
        """Pass new ids on."""
        value = value[..., self.skipped :]
        self.skipped = 0
        self.streamer.put(value)

    def end(self) -> None:
        """Pass the end on."""
        self.streamer.end()


AutoConfig.register(DecoderOnlyConfig.model_type, DecoderOnlyConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(DecoderOnlyConfig, DecoderOnlyModel, exist_ok=True)
