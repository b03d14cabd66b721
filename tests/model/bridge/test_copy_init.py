"""Initialization of cross-attention from self-attention: the copied weights, and what the copy computes."""

import pytest
import torch
import transformers
from test_build_model import IDS
from test_build_model import SIZE as BERT
from transformers import BartConfig, BertConfig

from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.config.model import BridgeSettings, CrossAttentionInit, SubmodelSettings
from warmstart.model.bridge.copy_init import copy_into_grafted
from warmstart.model.bridge.grafting import decoder_layers, graft, graft_settings
from warmstart.model.build import build_model
from warmstart.model.call_state import CallState
from warmstart.model.decoders import decoder_class, make_decoder

LAYER = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}


@pytest.fixture
def encoder(tmp_path):
    transformers.BertModel(BertConfig(**BERT)).save_pretrained(tmp_path / "encoder")
    return SubmodelSettings("bert", str(tmp_path / "encoder"), "bert")


def joined(encoder, folder, kind, init):
    decoder = SubmodelSettings("decoder", str(folder), kind)
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 50}
    return build_model(encoder, decoder, BridgeSettings(init=init), special_ids=IDS, **sizes)


@pytest.mark.parametrize("init", list(CrossAttentionInit))
def test_pretrained_cross_attention_is_not_changed(encoder, tmp_path, init):
    bart = transformers.BartForConditionalGeneration(BartConfig(vocab_size=50, d_model=16, **LAYER, **HEADS))
    bart.save_pretrained(tmp_path / "bart")
    config = BertConfig(**BERT, is_decoder=True, add_cross_attention=True)
    warm_started = transformers.BertLMHeadModel(config)
    torch.nn.init.normal_(warm_started.bert.encoder.layer[0].crossattention.output.dense.bias)
    warm_started.save_pretrained(tmp_path / "warm_started")
    for name, layers, path, cross in (
        ("bart", bart.model.decoder.layers, "model.decoder.layers", "encoder_attn"),
        ("warm_started", warm_started.bert.encoder, "bert.encoder", "crossattention"),
    ):
        model = joined(encoder, tmp_path / name, "bart" if name == "bart" else "bert", init)
        found = model.decoder.get_submodule(path).state_dict()
        assert any(cross in key for key in found)
        assert [key for key, value in layers.state_dict().items() if not torch.equal(found[key], value)] == []


def test_missing_parameters_of_cross_attention_are_copied(encoder, tmp_path):
    whole = transformers.BertLMHeadModel(BertConfig(**BERT, is_decoder=True, add_cross_attention=True))
    lacks = "bert.encoder.layer.1.crossattention.self.query.weight"
    state = {name: value for name, value in whole.state_dict().items() if name != lacks}
    whole.save_pretrained(tmp_path / "decoder", state_dict=state)
    found = joined(encoder, tmp_path / "decoder", "bert", CrossAttentionInit.copy).decoder.state_dict()
    of_self = lacks.replace("crossattention", "attention")
    assert torch.equal(found[lacks], whole.state_dict()[of_self])
    assert all(torch.equal(found[name], value) for name, value in state.items())


# All types with one matrix for query, key and value; OPT has three matrices.
FUSED = {
    "gpt_neox": {},
    "gpt_neox_japanese": {},
    "persimmon": {"qk_layernorm": False},
    "bloom": {},
    "falcon": {"multi_query": False, "alibi": False, "num_kv_heads": 4},
    "phi3": {},
    "codegen": {"n_embd": 64, "n_head": 8, "n_inner": 128, "rotary_dim": 8},
    "opt": {},
}


def layer_and_copy(kind, **values):
    config = tiny_config(kind)
    for name, value in values.items():
        setattr(config, name, value)
    make_decoder(config, grafted=True)
    config._attn_implementation = "eager"
    decoder = decoder_class(config)._from_config(config).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # so that exchanged matrices change the output clearly
    for name, parameter in decoder.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)  # the copy has no biases
    new = graft(decoder, graft_settings({"gate": "none"}), config.hidden_size, CallState())
    layer = decoder_layers(decoder)[0]
    copy_into_grafted(new["0"], layer)
    return decoder, layer, new["0"]


@pytest.mark.parametrize("kind", FUSED)
def test_copied_layer_computes_self_attention(kind):
    """Compare the last token, which sees all; position ids are equal, because cross-attention has no positions."""
    decoder, layer, cross = layer_and_copy(kind, **FUSED[kind])
    fused = ("query_key_value", "qkv_proj", "q_proj")
    attention = next(module for module in layer.modules() if any(hasattr(module, name) for name in fused))
    seen = {}

    def keep(module, args, kwargs, output):
        seen["read"] = args[0] if args else kwargs["hidden_states"]
        seen["output"] = output[0] - args[1] if kind == "bloom" else output[0]  # Bloom's attention adds the residual

    attention.register_forward_hook(keep, with_kwargs=True)
    ids = torch.full((1, 1), 7) if kind == "bloom" else torch.tensor([[7, 30, 55, 81]])
    positions = {} if kind in ("bloom", "opt") else {"position_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        decoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **positions)
        states, shape = seen["read"], cross.shape
        query, key, value = (
            getattr(cross, name)(states).unflatten(-1, (-1, shape.head_width)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        read = torch.nn.functional.scaled_dot_product_attention(query[:, :, -1:], key, value, enable_gqa=True)
        found = cross.o_proj(read.transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, seen["output"][:, -1:], rtol=1e-3, atol=1e-3)


def test_fused_matrix_of_unknown_layout_is_refused():
    # Lightning attention is fused per head, with an activation. With as many key heads as heads, the sizes would fit.
    with pytest.raises(ValueError, match=r"MiniMax.* no self-attention .*Set bridge\.init=random"):
        layer_and_copy("minimax", num_key_value_heads=4, layer_types=["linear_attention", "full_attention"])
