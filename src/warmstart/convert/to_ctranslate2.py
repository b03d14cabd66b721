"""Convert a model to CTranslate2: a BERT encoder with a GPT-2 or a BERT decoder.

CTranslate2 runs the Transformer layers that its model specification describes. Where a model differs, its weights are
changed so that the function stays the same:

- The embedding of token type 0 is added to the position embeddings.
- The projection from encoder to decoder size is multiplied into the keys and values of cross-attention.
- All layer norms have one epsilon, the decoder's. The encoder's residual stream is scaled by a power of two, which
  rounds nothing and has the effect of the encoder's own epsilon (``_Bert.scale``).
- A BERT decoder has a dense layer with an activation and a layer norm before its output matrix, and CTranslate2 has
  none there. They become one more layer (``_as_layer``).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from warmstart.errors import UserError

_ENCODERS, _DECODERS = ("bert",), ("gpt2", "bert")
_ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "gelu_fast": "GELUTanh",
    "relu": "RELU",
    "silu": "SWISH",
    "swish": "SWISH",
}


def refusal(model: Any) -> str | None:
    """Return the reason why CTranslate2 cannot hold a model, or None.

    Args:
        model: The joint model.
    """
    encoder, decoder = model.config.encoder, model.config.decoder
    if model.config.graft is not None:
        return f"its Transformer specification has no layers for cross-attention grafted onto {decoder.model_type}"
    if encoder.model_type not in _ENCODERS:
        return f"the encoder is {encoder.model_type}; {', '.join(_ENCODERS)} can be converted"
    if decoder.model_type not in _DECODERS:
        return f"the decoder is {decoder.model_type}; {', '.join(_DECODERS)} can be converted"
    activations = {encoder.hidden_act, getattr(decoder, "activation_function", None) or decoder.hidden_act}
    if unknown := activations - _ACTIVATIONS.keys():
        return f"it has no activation {unknown.pop()}"
    if decoder.model_type == "bert" and _ACTIVATIONS[decoder.hidden_act] not in ("GELU", "GELUTanh"):
        return f"a BERT decoder needs GELU as its activation, and this one has {decoder.hidden_act}"
    if decoder.model_type == "gpt2" and (
        decoder.scale_attn_by_inverse_layer_idx or decoder.reorder_and_upcast_attn or not decoder.scale_attn_weights
    ):
        return "its attention has no scale by layer"
    return None


def write(model: Any, source: list[str], target: list[str], folder: Path) -> None:
    """Write ``model.bin``, ``config.json`` and both vocabularies.

    Args:
        model: The joint model in float32, with merged adapters.
        source: The encoder's tokens by id.
        target: The decoder's tokens by id.
        folder: An existing folder.

    Raises:
        UserError: CTranslate2 cannot hold the model.
    """
    if reason := refusal(model):
        raise UserError(f"format=ctranslate2 was requested, but CTranslate2 cannot run this model: {reason}.")
    from ctranslate2.specs import TransformerSpec

    config = model.config
    decoder = config.decoder
    epsilon = decoder.layer_norm_epsilon if decoder.model_type == "gpt2" else decoder.layer_norm_eps
    with torch.no_grad():
        encoder = _Bert(model.encoder, config.encoder, epsilon)
        memory = encoder.memory(model.enc_to_dec_proj if hasattr(model, "enc_to_dec_proj") else None)
        make = _gpt2 if decoder.model_type == "gpt2" else _bert_decoder
        spec = TransformerSpec(encoder.spec(), make(model.decoder, decoder, memory))
    source, target = _all_tokens(source, config.encoder.vocab_size), _all_tokens(target, decoder.vocab_size)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    ends = config.eos_token_id
    spec.config.layer_norm_epsilon = epsilon
    spec.config.decoder_start_token = spec.config.bos_token = target[config.decoder_start_token_id]
    spec.config.eos_token = target[ends[0] if isinstance(ends, list) else ends]
    spec.config.unk_token = source[config.encoder.pad_token_id or 0]
    spec.validate()
    spec.optimize()
    spec.save(str(folder))


def _all_tokens(known: list[str], size: int) -> list[str]:
    return [*known, *(f"<unused_{i}>" for i in range(len(known), size))]


class _Memory:
    """What cross-attention reads: encoder states, scaled, then projected."""

    def __init__(self, scale: float, projection: nn.Linear | None) -> None:
        self.scale, self.projection = scale, projection

    def fold(self, weight_OH: Tensor, bias_O: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias that read the encoder's states directly."""
        if self.projection is not None:
            bias_O = bias_O + weight_OH @ self.projection.bias
            weight_OH = weight_OH @ self.projection.weight
        return weight_OH / self.scale, bias_O


class _Bert:
    """The encoder. Its residual stream is ``scale`` times BERT's: layer norms write it scaled, and readers divide."""

    def __init__(self, encoder: Any, config: Any, epsilon: float) -> None:
        self.encoder, self.config = encoder, config
        # LayerNorm(scale * x; epsilon) = LayerNorm(x; epsilon / scale^2)
        self.scale = 2.0 ** round(math.log2(epsilon / config.layer_norm_eps) / 2)

    def memory(self, projection: nn.Linear | None) -> _Memory:
        return _Memory(self.scale, projection)

    def spec(self) -> Any:
        from ctranslate2.specs import TransformerEncoderSpec, common_spec

        config = self.config
        spec = TransformerEncoderSpec(
            config.num_hidden_layers,
            config.num_attention_heads,
            pre_norm=False,
            activation=common_spec.Activation[_ACTIVATIONS[config.hidden_act]],
            layernorm_embedding=True,
        )
        _set_embeddings(spec, spec.embeddings[0], self.encoder.embeddings, self.scale)
        for to, layer in zip(spec.layer, self.encoder.encoder.layer, strict=True):
            _set_self_attention(to.self_attention, layer.attention, self.scale)
            _set_ffn(to.ffn, layer, self.scale)
        return spec


def _bert_decoder(decoder: Any, config: Any, memory: _Memory) -> Any:
    from ctranslate2.specs import TransformerDecoderSpec, common_spec

    layers = decoder.bert.encoder.layer
    spec = TransformerDecoderSpec(
        config.num_hidden_layers + 1,
        config.num_attention_heads,
        pre_norm=False,
        activation=common_spec.Activation[_ACTIVATIONS[config.hidden_act]],
        layernorm_embedding=True,
    )
    _set_embeddings(spec, spec.embeddings, decoder.bert.embeddings)
    for to, layer in zip(spec.layer[:-1], layers, strict=True):
        _set_self_attention(to.self_attention, layer.attention)
        cross = layer.crossattention
        of_memory = [memory.fold(part.weight, part.bias) for part in (cross.self.key, cross.self.value)]
        _set_linear(to.attention.linear[0], cross.self.query.weight, cross.self.query.bias)
        _set_linear(to.attention.linear[1], *map(torch.cat, zip(*of_memory, strict=True)))
        _set_linear(to.attention.linear[2], cross.output.dense.weight, cross.output.dense.bias)
        _set_norm(to.attention.layer_norm, cross.output.LayerNorm)
        _set_ffn(to.ffn, layer)
    head = decoder.cls.predictions
    _as_layer(spec.layer[-1], spec.layer[-2], layers[-1].output.LayerNorm, head.transform, of_memory[0][0].shape[1])
    _set_linear(spec.projection, head.decoder.weight, head.decoder.bias)
    return spec


def _as_layer(to: Any, last: Any, norm: Any, transform: Any, memory_size: int) -> None:
    """Write the transform of a BERT head, LayerNorm(gelu(W x + b)), as one more post-norm layer.

    The layer before it, ``last``, no longer applies the weights of its norm, so its output has mean 0 and variance 1.
    Attention of the new layer is zero, and norms without weights then change nothing. Its feed-forward network computes
    gelu(W x + b) - x, since gelu(x) - gelu(-x) = x, and the residual connection adds x again.
    """
    size = norm.weight.shape[0]
    one, zero = torch.ones(size), torch.zeros(size)
    eye = torch.eye(size)
    _set_norm(last.ffn.layer_norm, one, zero)
    shapes = {"self_attention": [(3 * size, size)], "attention": [(size, size), (2 * size, memory_size)]}
    for name, inner in shapes.items():
        attention = getattr(to, name)
        for linear, shape in zip(attention.linear, [*inner, (size, size)], strict=True):
            _set_linear(linear, torch.zeros(shape), torch.zeros(shape[0]))
        _set_norm(attention.layer_norm, one, zero)
    dense = transform.dense
    weight = torch.cat([dense.weight * norm.weight, eye, -eye])
    _set_linear(to.ffn.linear_0, weight, torch.cat([dense.bias + dense.weight @ norm.bias, zero, zero]))
    _set_linear(to.ffn.linear_1, torch.cat([eye, -eye, eye], dim=1), zero)
    _set_norm(to.ffn.layer_norm, transform.LayerNorm)


def _gpt2(decoder: Any, config: Any, memory: _Memory) -> Any:
    from ctranslate2.specs import TransformerDecoderSpec, common_spec

    spec = TransformerDecoderSpec(
        config.n_layer,
        config.n_head,
        pre_norm=True,
        activation=common_spec.Activation[_ACTIVATIONS[config.activation_function]],
    )
    body = decoder.transformer
    spec.scale_embeddings = False
    spec.embeddings.weight = _array(body.wte.weight)
    spec.position_encodings.encodings = _array(body.wpe.weight)
    _set_norm(spec.layer_norm, body.ln_f)
    _set_linear(spec.projection, decoder.lm_head.weight, torch.zeros(config.vocab_size))
    for to, layer in zip(spec.layer, body.h, strict=True):
        _set_norm(to.self_attention.layer_norm, layer.ln_1)
        _set_conv(to.self_attention.linear[0], layer.attn.c_attn)
        _set_conv(to.self_attention.linear[1], layer.attn.c_proj)
        cross = layer.crossattention
        _set_norm(to.attention.layer_norm, layer.ln_cross_attn)
        _set_conv(to.attention.linear[0], cross.q_attn)
        _set_linear(to.attention.linear[1], *memory.fold(cross.c_attn.weight.T, cross.c_attn.bias))
        _set_conv(to.attention.linear[2], cross.c_proj)
        _set_norm(to.ffn.layer_norm, layer.ln_2)
        _set_conv(to.ffn.linear_0, layer.mlp.c_fc)
        _set_conv(to.ffn.linear_1, layer.mlp.c_proj)
    return spec


def _set_embeddings(spec: Any, to: Any, embeddings: Any, scale: float = 1.0) -> None:
    spec.scale_embeddings = False
    of_type = embeddings.token_type_embeddings.weight[0]
    to.weight = _array(scale * embeddings.word_embeddings.weight)
    spec.position_encodings.encodings = _array(scale * (embeddings.position_embeddings.weight + of_type))
    _set_norm(spec.layernorm_embedding, embeddings.LayerNorm, scale=scale)


def _set_self_attention(to: Any, attention: Any, scale: float = 1.0) -> None:
    parts = (attention.self.query, attention.self.key, attention.self.value)
    weight = torch.cat([part.weight for part in parts]) / scale
    _set_linear(to.linear[0], weight, torch.cat([part.bias for part in parts]))
    out = attention.output
    _set_linear(to.linear[1], scale * out.dense.weight, scale * out.dense.bias)
    _set_norm(to.layer_norm, out.LayerNorm, scale=scale)


def _set_ffn(to: Any, layer: Any, scale: float = 1.0) -> None:
    _set_linear(to.linear_0, layer.intermediate.dense.weight / scale, layer.intermediate.dense.bias)
    _set_linear(to.linear_1, scale * layer.output.dense.weight, scale * layer.output.dense.bias)
    _set_norm(to.layer_norm, layer.output.LayerNorm, scale=scale)


def _set_norm(to: Any, norm: Any, bias: Tensor | None = None, scale: float = 1.0) -> None:
    weight, bias = (norm, bias) if bias is not None else (norm.weight, norm.bias)
    to.gamma, to.beta = _array(scale * weight), _array(scale * bias)


def _set_linear(to: Any, weight_OI: Tensor, bias_O: Tensor) -> None:
    to.weight, to.bias = _array(weight_OI), _array(bias_O)


def _set_conv(to: Any, layer: Conv1D) -> None:
    _set_linear(to, layer.weight.T, layer.bias)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
