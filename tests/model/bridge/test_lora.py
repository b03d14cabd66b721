"""Adapters start without effect, are trained, rebuilt from the config, and merged into plain weights."""

import pytest
import torch
from tiny import IDS, TARGET_VOCABULARY, gap, small_config, small_decoder_config, source, target

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.errors import UserError
from warmstart.model.bridge.lora import add_lora, is_lora, merge_lora

KINDS = {"bert": {}, "gpt2": {}, "llama": {"num_key_value_heads": 2, "head_dim": 8}}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def build(kind):
    torch.manual_seed(0)
    configs = {"encoder": small_config("bert", **NO_DROPOUT), "decoder": small_decoder_config(kind, **KINDS[kind])}
    graft = {"gate": "none"} if kind == "llama" else None
    return EncoderDecoderModel(EncoderDecoderConfig(**configs, graft=graft, **IDS)).eval()


def logits(model):
    return model(**source(), labels=target()).logits


def disturb(model):
    """Change the adapters as training does; their second matrix is initialized to zero."""
    for name, parameter in model.named_parameters():
        if is_lora(name):
            torch.nn.init.normal_(parameter, std=0.3)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("halves", ["encoder", "decoder", "both"])
def test_adapters_start_without_effect_and_are_trained(kind, halves):
    model = build(kind)
    before, named = logits(model), set(model.new_parameter_names())
    add_lora(model, {"halves": halves, "rank": 2, "alpha": 4})
    assert torch.equal(logits(model), before)
    for name in ("encoder", "decoder"):
        if halves in (name, "both"):
            getattr(model, f"freeze_{name}")()
    model(**source(), labels=target()).loss.backward()
    trains = {name for name, p in model.named_parameters() if p.grad is not None}
    adapters = {name for name in trains if is_lora(name)}
    assert {name.split(".")[0] for name in adapters} == ({"encoder", "decoder"} if halves == "both" else {halves})
    assert named | adapters == model.new_parameter_names()
    assert named <= trains
    for name in trains - adapters - named:
        assert halves not in (name.split(".")[0], "both"), name
    assert not any("cross" in name for name in adapters)
    disturb(model)
    assert gap(logits(model), before) > 1e-3


def test_checkpoint_with_adapters_is_rebuilt(kind, tmp_path):
    model = build(kind)
    add_lora(model, {"halves": "both", "rank": 2, "alpha": 4})
    disturb(model)
    again = EncoderDecoderModel(EncoderDecoderConfig(**model.config.to_dict())).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again), logits(model))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(EncoderDecoderModel.from_pretrained(tmp_path)), logits(model))


def test_merged_adapters_leave_plain_weights(kind, tmp_path):
    model, plain = build(kind), build(kind)
    add_lora(model, {"halves": "both", "rank": 2, "alpha": 4})
    disturb(model)
    wanted = logits(model)
    merge_lora(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert gap(logits(model), wanted) < 1e-4
    model.save_pretrained(tmp_path)
    opened = EncoderDecoderModel.from_pretrained(tmp_path)
    assert opened.config.lora is None
    assert torch.equal(logits(opened), logits(model))


@pytest.mark.parametrize("kind", ["granitemoe", "llama4_text"])
def test_routers_of_experts_get_no_adapter(kind):
    torch.manual_seed(0)
    decoder = tiny_config(kind)
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=small_config("bert"), decoder=decoder, **IDS)).eval()
    keys = model.state_dict().keys()
    add_lora(model, {"halves": "decoder", "rank": 2, "alpha": 4})
    adapters = [name for name, _ in model.named_parameters() if is_lora(name)]
    assert any("q_proj" in name for name in adapters)
    assert not any("router" in name for name in adapters)
    disturb(model)
    wanted = logits(model)
    merge_lora(model)
    assert model.state_dict().keys() == keys
    assert gap(logits(model), wanted) < 1e-3


def test_adapters_with_shared_weights_are_refused():
    configs = {"encoder": small_config("bert", vocab_size=TARGET_VOCABULARY), "decoder": small_decoder_config("bert")}
    config = EncoderDecoderConfig(**configs, tie_encoder_decoder=True, **IDS)
    with pytest.raises(UserError, match="share=weights"):
        add_lora(EncoderDecoderModel(config), {"halves": "encoder", "rank": 2, "alpha": 4})
