"""Muon optimizes the new hidden matrices only, in one optimizer with AdamW that resumes to the bit."""

import copy

import pytest
import torch
from tiny_training import SIZE, tiny_model
from transformers import BertConfig, LlamaConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.training import NewOptimizer, OptimSettings
from warmstart.errors import UserError
from warmstart.training.muon import MUON
from warmstart.training.optimizer import build_optimizer, parameter_groups
from warmstart.training.schedule import build_schedule

OPTIM = OptimSettings(new_rate=1e-2, weight_decay=0.1, new_optimizer=NewOptimizer.muon)


def gradients_of(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def names_in(model, group):
    ids = {id(p) for one in parameter_groups(model, OPTIM) if one["name"] == group for p in one["params"]}
    return {name for name, p in model.named_parameters() if id(p) in ids}


def test_it_optimizes_the_new_matrices_and_no_others():
    model = tiny_model()
    new = model.new_parameter_names()
    assert (
        names_in(model, MUON) == {name for name in new if name.endswith("weight") and "LayerNorm" not in name} != set()
    )
    llama = LlamaConfig(**{k: v for k, v in SIZE.items() if "dropout" not in k and "position" not in k})
    grafted = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=llama))
    assert all(name.startswith("cross_attention.") for name in names_in(grafted, MUON))
    assert not any("gate" in name or "norm" in name for name in names_in(grafted, MUON))


def test_embeddings_and_heads_of_an_untrained_decoder_have_adamw():
    model = tiny_model()
    model.mark_new("decoder.")
    assert "decoder.bert.encoder.layer.0.attention.self.query.weight" in names_in(model, MUON)
    assert not any(
        "embeddings" in name or name.startswith("decoder.cls.predictions.decoder") for name in names_in(model, MUON)
    )


def test_a_step_is_that_of_two_separate_optimizers():
    model = tiny_model()
    apart = copy.deepcopy(model)
    joint = build_optimizer(model, OPTIM)
    groups = parameter_groups(apart, OPTIM)
    adamw = torch.optim.AdamW([group for group in groups if group["name"] != MUON], betas=(0.9, 0.999), fused=True)
    (ours,) = (group for group in groups if group["name"] == MUON)
    muon = torch.optim.Muon(ours["params"], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        for one in (model, apart):
            gradients_of(one, seed)
        assert joint.step(lambda: 7) == 7
        adamw.step()
        muon.step()
    for (name, a), b in zip(model.named_parameters(), apart.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_loaded_state_goes_on_to_the_bit():
    model = tiny_model()
    optimizer = build_optimizer(model, OPTIM)
    gradients_of(model, 1)
    optimizer.step()
    state, other = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model)
    resumed = build_optimizer(other, OPTIM)
    resumed.load_state_dict(state)
    for one, taken in ((model, optimizer), (other, resumed)):
        gradients_of(one, 2)
        taken.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_its_learning_rate_follows_the_schedule_of_new_parameters():
    optimizer = build_optimizer(tiny_model(), OPTIM)
    schedule = build_schedule(optimizer, OPTIM, 100)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates[MUON] == rates["new_no_decay"]
    optimizer.step()
    schedule.step()
    assert rates[MUON] < {group["name"]: group["lr"] for group in optimizer.param_groups}[MUON]


def test_a_checkpoint_of_adamw_is_refused():
    begun = build_optimizer(tiny_model(), OptimSettings()).state_dict()
    with pytest.raises(UserError, match="new_muon"):
        build_optimizer(tiny_model(), OPTIM).load_state_dict(begun)


def test_without_new_matrices_or_with_shards_it_is_refused(settings_of):
    from warmstart.config.bounds import faults_of_numbers

    model = tiny_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in model.new_parameter_names())
    with pytest.raises(UserError, match="no matrix of this pair is new"):
        parameter_groups(model, OPTIM)
    (fault,) = faults_of_numbers(
        settings_of("optim.new_optimizer=muon", "trainer=fsdp", "encoder=bert", "decoder=bert")
    )
    assert "trainer.strategy=ddp" in fault


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch older than 2.9 has no Muon")
def test_an_old_torch_is_named(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match=r"needs torch 2\.9"):
        build_optimizer(tiny_model(), OPTIM)
