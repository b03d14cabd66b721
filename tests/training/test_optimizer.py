"""Each part has its rate, vectors have no decay, and every trainable parameter stands in one group exactly once."""

import pytest
import torch
from tiny_training import SIZE, tiny_model
from transformers import BertConfig, LlamaConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.training import OptimSettings
from warmstart.errors import UserError
from warmstart.training.optimizer import build_optimizer, parameter_groups

LLAMA = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
RATES = OptimSettings(encoder_rate=1.0, decoder_rate=2.0, new_rate=3.0, gate_rate=4.0, weight_decay=0.1)


def groups_of(model, optim=RATES):
    return {group["name"]: group for group in parameter_groups(model, optim)}


def listed(groups):
    return sorted(id(p) for group in groups.values() for p in group["params"])


def test_each_group_has_its_learning_rate_and_vectors_have_no_decay():
    model = tiny_model()
    groups = groups_of(model)
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "encoder": (1.0, 0.1),
        "encoder_no_decay": (1.0, 0.0),
        "decoder": (2.0, 0.1),
        "decoder_no_decay": (2.0, 0.0),
        "new": (3.0, 0.1),
        "new_no_decay": (3.0, 0.0),
    }
    for name, group in groups.items():
        assert all((p.dim() == 1) == name.endswith("_no_decay") for p in group["params"])
    assert listed(groups) == sorted(id(p) for p in model.parameters())
    new = {id(p) for name, p in model.named_parameters() if name in model.new_parameter_names()}
    assert {id(p) for name in ("new", "new_no_decay") for p in groups[name]["params"]} == new != set()


def test_the_projection_between_two_hidden_sizes_is_new():
    wide = BertConfig(**(SIZE | {"hidden_size": 24}))
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=wide, decoder=BertConfig(**SIZE)))
    assert any(p is model.enc_to_dec_proj.weight for p in groups_of(model)["new"]["params"])


def test_gates_have_their_own_learning_rate():
    halves = {"encoder": BertConfig(**SIZE), "decoder": LlamaConfig(**{name: SIZE[name] for name in LLAMA})}
    model = EncoderDecoderModel(EncoderDecoderConfig(**halves))
    group = groups_of(model)["new_gate"]
    assert (group["lr"], group["weight_decay"]) == (4.0, 0.0)
    assert [id(p) for p in group["params"]] == [id(cross.gate) for cross in model.cross_attention.values()]
    assert "new_gate" not in groups_of(tiny_model())


def test_shared_parameters_are_in_one_group():
    halves = {"encoder": BertConfig(**SIZE), "decoder": BertConfig(**SIZE)}
    model = EncoderDecoderModel(EncoderDecoderConfig(**halves, tie_encoder_decoder=True))
    assert len(set(listed(groups_of(model)))) == len(listed(groups_of(model))) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out_and_a_frozen_model_is_refused():
    model = tiny_model()
    model.freeze_encoder()
    assert {name.removesuffix("_no_decay") for name in groups_of(model)} == {"decoder", "new"}
    model.requires_grad_(False)
    with pytest.raises(UserError, match="frozen"):
        groups_of(model)


@pytest.mark.parametrize("fused", [None, False])
def test_fused_and_plain_take_the_same_step(fused):
    model, plain = tiny_model(), tiny_model()
    for one, kind in ((model, fused), (plain, False)):
        optimizer = build_optimizer(one, OptimSettings(), fused=kind)
        assert optimizer.defaults["fused"] == (kind is None)
        for parameter in one.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        optimizer.step()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)


def test_a_checkpoint_with_other_parameter_groups_is_refused():
    model = tiny_model()
    begun = build_optimizer(model, OptimSettings()).state_dict()
    model.freeze_encoder()
    with pytest.raises(UserError, match=r"trains decoder, .* the checkpoint trained encoder, .*Set bridge"):
        build_optimizer(model, OptimSettings()).load_state_dict(begun)
