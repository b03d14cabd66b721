"""The two graphs of a model that ONNX and ``torch.export`` record: the source, and one decoding step with a KV cache.

    encode(input_ids, attention_mask) -> keys and values of the source
    step(decoder_input_ids, attention_mask, source keys and values, target keys and values) -> logits, keys and values

Keys and values are flat lists: keys, then values, of each layer in turn. Sizes of batch, source and target are dynamic,
and the first step has a target of length 0.

Shapes: B batch, S source length, P previous target positions, V vocabulary, N heads, D head size.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.model.bridge.grafting import kwargs_for_decoder
from warmstart.model.cache_names import cache_of
from warmstart.model.call_state import EncodedSource
from warmstart.model.encoders import complete_inputs
from warmstart.model.padding import decoder_positions
from warmstart.model.submodel_config import maximum_positions

# Sizes of the example batch; a recorded graph fixes sizes of 0 and 1.
_BATCH, _SOURCE, _PAST = 2, 7, 3


class Graph(NamedTuple):
    """A module to record, with its example inputs and the dynamic sizes of these."""

    module: nn.Module
    inputs: dict[str, Any]
    sizes: dict[str, Any]
    input_names: list[str]
    output_names: list[str]

    def record(self) -> ExportedProgram:
        """Record the graph with ``torch.export``.

        Raises:
            UserError: The module cannot be recorded; the message has the reason.
        """
        try:
            # Not strict: the hooks of cross-attention are plain Python.
            with torch.no_grad():
                return export(self.module, (), kwargs=self.inputs, dynamic_shapes=self.sizes, strict=False)
        except Exception as error:
            if says_nothing_of_the_file(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"torch.export cannot record this model: {reason} Export it with format=safetensors."
            ) from error


class Graphs(NamedTuple):
    """Both graphs of a model."""

    encode: Graph
    step: Graph


class _KeysAndValues(DynamicLayer):
    """Keys and values of one layer. ``DynamicLayer`` asks whether it is empty, and a graph fixes the answer."""

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[-2]


def _cache(flat: list[Tensor]) -> DynamicCache:
    """Make a cache of keys and values (B, N, P, D) of all layers."""
    cache = DynamicCache()
    for keys, values in zip(flat[::2], flat[1::2], strict=True):
        layer = _KeysAndValues()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _flat(cache: Any) -> list[Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


class Encode(nn.Module):
    """Encode the source, and compute the keys and values that cross-attention reads in every step."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Return keys and values of the source, (B, N, S, D) each.

        Args:
            input_ids: (B, S) source ids.
            attention_mask: (B, S), 0 at padding, which must be on the right.
        """
        model = self.model
        inputs = complete_inputs(model.encoder, {"input_ids": input_ids, "attention_mask": attention_mask})
        encoded = model.encoder(**inputs, return_dict=True)
        states_BSH = model._project(encoded[0])  # noqa: SLF001 - the model's own part
        if model.config.graft is not None:
            return [each for layer in model.cross_attention.values() for each in layer.keys_and_values(states_BSH)]
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.full_like(input_ids[:, :1], model.config.decoder_start_token_id)
        # The decoder computes keys and values of the source in its first step; the rest of the step is not used.
        _decoded(model, start, cache, states_BSH, attention_mask)
        return _flat(cache.cross_attention_cache)


class Step(nn.Module):
    """Decode one token of each target."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, decoder_input_ids: Tensor, attention_mask: Tensor, source: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return logits (B, V) of the next token, and keys and values with this position, (B, N, P + 1, D) each.

        Args:
            decoder_input_ids: (B, 1) the last token of each target.
            attention_mask: (B, S) of the source, 0 at padding.
            source: Keys and values of the source, from ``Encode``.
            past: Keys and values of the previous positions, (B, N, P, D) each.
        """
        model = self.model
        if model.config.graft is not None:
            cache: Any = _cache(past)
            pairs = zip(source[::2], source[1::2], strict=True)
            kept = dict(zip((layer.index for layer in model.cross_attention.values()), pairs, strict=True))
            logits = _decoded(model, decoder_input_ids, cache, source[0], attention_mask, kept)
            return logits, _flat(cache)
        cache = EncoderDecoderCache(_cache(past), _cache(source))
        cache.is_updated = dict.fromkeys(range(len(cache.cross_attention_cache.layers)), True)
        batch, length = attention_mask.shape
        unread = source[0].new_zeros(1, 1, 1).expand(batch, length, model.config.decoder.hidden_size)
        return _decoded(model, decoder_input_ids, cache, unread, attention_mask), _flat(cache.self_attention_cache)


def _decoded(
    model: Any,
    ids_B1: Tensor,
    cache: Any,
    states_BSH: Tensor,
    mask_BS: Tensor,
    kept: dict[int, tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Run the decoder for one position and return its logits (B, V); the cache grows by this position."""
    inputs = {"input_ids": ids_B1, "cache": cache, "use_cache": True, "return_dict": True}
    inputs |= decoder_positions(model.config, ids_B1, past=cache)
    inputs = kwargs_for_decoder(model.decoder, inputs)
    if model.config.graft is None:
        decoded = model.decoder(encoder_hidden_states=states_BSH, encoder_attention_mask=mask_BS, **inputs)
    else:
        with model._call.during(source=EncodedSource(states_BSH, mask_BS, kept)):  # noqa: SLF001
            decoded = model.decoder(**inputs)
    logits: Tensor = decoded.logits[:, -1]
    return logits


def graphs_of(model: Any) -> Graphs:
    """Return both graphs of a model in evaluation mode, after a comparison of their logits with the model's.

    Args:
        model: A joint model with merged adapters.

    Raises:
        UserError: The decoder's cache keeps anything but all keys and values, such as the state of a recurrent layer,
            or the graphs compute other logits than the model.
    """
    batch, source = Dim("batch"), Dim("source", max=maximum_positions(model.config.encoder))
    ids = torch.full((_BATCH, _SOURCE), (model.config.encoder.pad_token_id or 0) + 1)
    targets = torch.full((_BATCH, _PAST), model.config.decoder_start_token_id)
    mask = torch.ones_like(ids)
    encode, step = Encode(model), Step(model)
    with torch.no_grad():
        of_source = encode(ids, mask)
        expected = model(ids, mask, decoder_input_ids=targets, use_cache=True)
        of_target = _keys_and_values(model, cache_of(expected))
        past = [each[:, :, :0] for each in of_target]
        for position in range(_PAST):
            logits, past = step(targets[:, position, None], mask, of_source, past)
            if not torch.allclose(logits, expected.logits[:, position], rtol=1e-3, atol=1e-3):
                raise UserError(
                    f"A {model.config.decoder.model_type} decoder cannot be recorded as a graph: decoded step by step, "
                    "it computes other logits than the model. Export it with format=safetensors."
                )
    sources, pasts, presents = (
        [f"{prefix}_{part}_{i}" for i in range(len(flat) // 2) for part in ("keys", "values")]
        for prefix, flat in (("source", of_source), ("past", of_target), ("present", of_target))
    )
    of_text = {"input_ids": {0: batch, 1: source}, "attention_mask": {0: batch, 1: source}}
    of_step = {
        "decoder_input_ids": {0: batch},
        "attention_mask": of_text["attention_mask"],
        "source": [{0: batch, 2: source}] * len(of_source),
        "past": [{0: batch, 2: Dim.AUTO}] * len(of_target),  # a named size cannot be shown to keep every guard
    }
    step_inputs = {"decoder_input_ids": targets[:, :1], "attention_mask": mask, "source": of_source, "past": of_target}
    step_names = ["decoder_input_ids", "attention_mask", *sources, *pasts]
    return Graphs(
        Graph(encode, {"input_ids": ids, "attention_mask": mask}, of_text, [*of_text], sources),
        Graph(step, step_inputs, of_step, step_names, ["logits", *presents]),
    )


def _keys_and_values(model: Any, cache: Any) -> list[Tensor]:
    """Return the target's keys and values in the model's own cache."""
    kind = model.config.decoder.model_type
    own = getattr(cache, "self_attention_cache", cache)
    layers = getattr(own, "layers", [])
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        found = ", ".join(sorted({type(layer).__name__ for layer in layers})) or "no layers"
        raise UserError(
            f"A {kind} decoder cannot be recorded as a graph: its cache has {found}, and only layers that keep all "
            "keys and values are supported. Export it with format=safetensors."
        )
    return _flat(own)
