"""Attention with dropout on a CPU equals plain attention with the same mask, and stores no attention weights."""

import pytest
import torch
import torch.nn.functional as F
from tiny import OURS, SOURCE_VOCABULARY, TARGET_VOCABULARY, small_config, small_decoder_config, source, target
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertModel, GPT2LMHeadModel

from warmstart.config.model import BridgeSettings, Scale, SubmodelSettings, Weights
from warmstart.cpu import attention
from warmstart.cpu.attention import NAME, attention_with_dropout, use_lean_dropout
from warmstart.cpu.dropout import LeanDropout, dropped_share
from warmstart.model.build import build_model

ROWS, HEADS, QUERIES, KEYS, WIDTH = 3, 4, 5, 7, 6
BERT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
GPT2 = {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.2}
PAIRS = ["bert x gpt2", "bert x bert"]


def pair_with_dropout(kind):
    decoder = small_decoder_config("gpt2", **GPT2) if kind == "bert x gpt2" else small_decoder_config("bert", **BERT)
    torch.manual_seed(0)
    model = OURS.join(small_config("bert", **BERT), decoder)
    assert use_lean_dropout(model.encoder)
    assert use_lean_dropout(model.decoder)
    return model


def inputs(groups=1):
    torch.manual_seed(0)
    shapes = (HEADS, QUERIES), (HEADS // groups, KEYS), (HEADS // groups, KEYS)
    return [torch.randn(ROWS, *shape, WIDTH, dtype=torch.float64, requires_grad=True) for shape in shapes]


def masks():
    padded = torch.ones(ROWS, 1, QUERIES, KEYS, dtype=torch.bool)
    padded[1, ..., 4:] = False
    blank = padded.clone()
    blank[2, :, 3] = False
    causal = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril()
    return {"none": None, "padded": padded, "blank": blank, "causal": causal, "added": 3 * torch.randn(1, HEADS, 5, 7)}


def drawn(query, key, dropout, seed):
    """Return where the mask of this seed drops."""
    drop = torch.empty(ROWS, HEADS, QUERIES, KEYS, dtype=torch.bool)
    for chunk, kept in attention._chunks(query, key, dropped_share(dropout), seed):
        drop[chunk] = kept == 0
    return drop


@pytest.mark.parametrize("chunk", [1, QUERIES * KEYS * 3, QUERIES * KEYS * HEADS * 2, 2**20])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", masks())
def test_attention_and_gradients_equal_plain_attention_with_the_same_mask(kind, groups, chunk, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK", chunk)
    query, key, value = inputs(groups)
    mask = masks()[kind]
    mask = mask.double() if kind == "added" else mask
    torch.manual_seed(5)
    read = attention_with_dropout(query, key, value, mask, 0.25, 0.3)
    weight = torch.randn_like(read)
    grads = torch.autograd.grad((read * weight).sum(), (query, key, value))

    torch.manual_seed(5)
    every_key, every_value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    drop = drawn(query, every_key, 0.25, int(torch.randint(2**62, ())))
    assert 0.1 < drop.double().mean() < 0.4
    scores = 0.3 * query @ every_key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    probabilities = torch.softmax(scores, -1).nan_to_num(0) if kind == "blank" else torch.softmax(scores, -1)
    expected = probabilities.masked_fill(drop, 0) @ every_value / 0.75
    torch.testing.assert_close(read, expected, rtol=1e-12, atol=1e-12)
    if kind == "blank":  # the reference gives NaN gradients: autograd goes through nan_to_num
        return
    expected_grads = torch.autograd.grad((expected * weight).sum(), (query, key, value))
    torch.testing.assert_close(grads, expected_grads, rtol=1e-11, atol=1e-11)


def test_query_without_visible_keys_gives_zero_and_no_gradient():
    query, key, value = inputs()
    read = attention_with_dropout(query, key, value, masks()["blank"], 0.25)
    assert not read[2, :, 3].any()
    grads = torch.autograd.grad(read.sum(), (query, key, value))
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[0][2, :, 3].any()


def test_mean_over_masks_equals_attention_without_dropout():
    query, key, value = (x.detach() for x in inputs())
    torch.manual_seed(0)
    mean = torch.stack([attention_with_dropout(query, key, value, None, 0.1) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, F.scaled_dot_product_attention(query, key, value), rtol=0, atol=0.03)


def test_mask_follows_torchs_seed():
    query, key, value = (x.detach() for x in inputs())
    torch.manual_seed(1)
    first, second = (attention_with_dropout(query, key, value, None, 0.5) for _ in range(2))
    torch.manual_seed(1)
    again = attention_with_dropout(query, key, value, None, 0.5)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def training_loss(model):
    torch.manual_seed(0)
    source, labels = torch.randint(5, 50, (3, 17)), torch.randint(5, 60, (3, 11))
    mask = torch.ones_like(source)
    mask[1, 9:] = 0
    torch.manual_seed(1)
    return model.training_loss(source, mask, labels)[0]


def saved_shapes(model):
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: shapes.append(tuple(x.shape)) or x, lambda x: x):
        training_loss(model)
    return shapes


@pytest.mark.parametrize("kind", PAIRS)
def test_training_step_stores_no_attention_weights(kind):
    model = pair_with_dropout(kind).train()
    scores = {(17, 17), (11, 17), (11, 11)}
    kept = [shape for shape in saved_shapes(model) if shape[-2:] in scores and len(shape) > 2 and shape[1] > 1]
    assert not kept
    model.set_attn_implementation("sdpa")
    assert [shape for shape in saved_shapes(model) if shape[-2:] in scores]


@pytest.mark.parametrize("kind", PAIRS)
def test_results_without_dropout_do_not_change(kind):
    model = pair_with_dropout(kind).eval()
    loss = training_loss(model)
    model.set_attn_implementation("sdpa")
    assert torch.equal(loss, training_loss(model))


def test_training_loss_replaces_dropout_once_and_keeps_a_later_choice():
    torch.manual_seed(0)
    model = OURS.join(small_config("bert", **BERT), small_decoder_config("gpt2", **GPT2))
    training_loss(model)  # in evaluation mode
    assert model.encoder.config._attn_implementation == "sdpa"
    training_loss(model.train())
    for submodel in (model.encoder, model.decoder):
        assert submodel.config._attn_implementation == NAME
        assert any(isinstance(module, LeanDropout) for module in submodel.modules())
    model.set_attn_implementation("sdpa")
    training_loss(model)
    assert model.encoder.config._attn_implementation == "sdpa"


def test_gradient_checkpointing_draws_the_same_mask_again():
    gradients = []
    for checkpointing in (False, True):
        model = pair_with_dropout("bert x gpt2").double().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        training_loss(model).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, grad in gradients[0].items():
        torch.testing.assert_close(grad, gradients[1][name], rtol=1e-9, atol=1e-10, msg=name)


def test_submodels_without_exchangeable_sdpa_are_not_changed():
    eager = BertModel._from_config(
        BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8),
        attn_implementation="eager",
    )
    assert not use_lean_dropout(eager)
    assert eager.config._attn_implementation == "eager"
    falcon = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("falcon", hidden_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=9)
    )
    assert not use_lean_dropout(falcon)
    assert falcon.config._attn_implementation == "sdpa"


def test_saved_config_does_not_name_this_attention(tmp_path):
    model = pair_with_dropout("bert x gpt2")
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("weights", Weights)
def test_every_layer_of_a_built_model_uses_it(weights, tmp_path, monkeypatch):
    if weights is Weights.pretrained:
        BertModel(small_config("bert", **BERT)).save_pretrained(tmp_path / "bert")
        GPT2LMHeadModel(small_decoder_config("gpt2", **GPT2)).save_pretrained(tmp_path / "gpt2")
    chosen = {"weights": weights, "scale": Scale.tiny if weights is Weights.random else Scale.full}
    model = build_model(
        SubmodelSettings("bert", str(tmp_path / "bert"), "bert", **chosen),
        SubmodelSettings("gpt2", str(tmp_path / "gpt2"), "gpt2", **chosen),
        BridgeSettings(),
        special_ids={"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        encoder_vocab_size=SOURCE_VOCABULARY,
        decoder_vocab_size=TARGET_VOCABULARY,
    )
    calls = []
    monkeypatch.setattr(attention, "attention_with_dropout", lambda query, *_: calls.append(1) or query)
    model.train()(**source(), labels=target())
    layers = model.config.encoder.num_hidden_layers + 2 * model.config.decoder.num_hidden_layers
    assert len(calls) == layers
    assert [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert all(type(module) is LeanDropout for module in model.modules() if isinstance(module, torch.nn.Dropout))
    assert model.encoder.config._attn_implementation == model.decoder.config._attn_implementation == NAME
