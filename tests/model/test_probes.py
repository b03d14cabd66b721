"""Properties of a correct model, checked for every supported decoder and encoder type without a reference model.

A model fails here if it ignores its source, if its decoder is not causal, or if training and generation differ.
"""

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
import transformers
from tiny import OURS, gap, small_config, small_decoder_config, source, target
from transformers import GenerationConfig

from warmstart.model import loss as loss_module
from warmstart.model.padding import decoder_positions

# RoCBert's shape and pronunciation embeddings are switched off, because they need inputs of their own.
DECODERS = {
    **{kind: {} for kind in ("bert", "bert-generation", "electra", "ernie", "gpt2", "rembert", "roformer")},
    **{kind: {} for kind in ("roberta", "xlm-roberta", "camembert", "data2vec-text", "roberta-prelayernorm")},
    "xlm-roberta-xl": {},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "roc_bert": {"enable_pronunciation": False, "enable_shape": False},
    **{
        kind: {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "init_std": 0.3}
        for kind in ("bart", "mbart", "pegasus", "blenderbot", "blenderbot-small", "plbart", "mvp", "bigbird_pegasus")
    },
    "trocr": {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "init_std": 0.3},
    "xglm": {"num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "init_std": 0.3},
}


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    """BERT with each supported decoder type; tests must not change it."""
    torch.manual_seed(0)
    return OURS.join(small_config("bert"), small_decoder_config(request.param, **DECODERS[request.param]))


@pytest.fixture
def pair():
    """A new model with a projection, which tests may change."""
    return OURS.join(small_config("bert"), small_decoder_config("gpt2", 24))


def batch():
    return source() | {"labels": target()}


def gradients(model, loss):
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))


def assert_same_gradients(got, wanted, atol=1e-5):
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (gradient is None) == (got[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(
                got[name], gradient, atol=atol, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
            )


# --- every decoder type ----------------------------------------------------------------------------------------------


def test_list_of_decoders_is_complete():
    """Every causal LM type with correct cross-attention of its own is tested here."""
    import inspect

    from warmstart.config.model import SELECTOR
    from warmstart.model.decoders import REFUSED, UNSOUND

    found = {
        config.model_type
        for config, classes in transformers.MODEL_FOR_CAUSAL_LM_MAPPING.items()
        if "encoder_hidden_states"
        in inspect.signature((classes[0] if isinstance(classes, tuple) else classes).forward).parameters
    }
    found -= UNSOUND.keys() | REFUSED.keys()
    others = {
        "marian",
        SELECTOR,
    }  # BART's architecture, with restrictions on the vocabulary; ours, which writes nothing
    assert found - others == DECODERS.keys()


def test_every_source_token_has_an_effect_and_padding_has_none(model):
    base = model(**batch()).logits
    assert gap(model(**dict(batch(), **source(seed=9))).logits, base) > 1e-2
    for column in range(9):
        changed = batch()
        changed["input_ids"][:, column] = (changed["input_ids"][:, column] + 1) % 40 + 5
        difference = (model(**changed).logits - base).abs().amax(dim=(1, 2))
        assert (difference > 1e-5).tolist() == [True, column < 5, True]


def test_logits_do_not_depend_on_current_and_later_labels(model):
    base = model(**batch()).logits
    for column in range(5):
        changed = batch()
        changed["labels"][:2, column] = (changed["labels"][:2, column] + 1) % 50 + 5
        moved = (model(**changed).logits - base)[:2].abs().amax(dim=(0, 2)) > 1e-5
        assert not moved[: column + 1].any()
        assert moved[column + 1]


def test_positions_after_the_target_have_no_effect(model):
    short = {name: tensor[2:] for name, tensor in batch().items()}
    cut = dict(short, labels=short["labels"][:, :4])
    torch.testing.assert_close(model(**short).logits[:, :4], model(**cut).logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(**short).loss, model(**cut).loss)


def test_training_and_generation_with_and_without_cache_give_equal_logits(model):
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "output_logits": True, "return_dict_in_generate": True}
    cached, uncached = (model.generate(**source(), use_cache=flag, **options) for flag in (True, False))
    assert torch.equal(cached.sequences, uncached.sequences)
    stepwise = torch.stack(cached.logits, 1)
    assert gap(stepwise, torch.stack(uncached.logits, 1)) < 1e-3
    assert gap(stepwise, model(**source(), labels=cached.sequences[:, 1:]).logits) < 1e-3


def test_beam_search_of_a_batch_equals_that_of_each_example(model):
    options = {"num_beams": 3, "max_new_tokens": 6, "min_new_tokens": 6}
    together = model.generate(**source(), **options)
    for row in range(3):
        alone = {name: tensor[row : row + 1] for name, tensor in source().items()}
        assert torch.equal(model.generate(**alone, **options)[0], together[row])


def test_training_loss_and_gradients_equal_forward(model):
    loss, nll, count = model.training_loss(**batch())
    expected = model(**batch()).loss
    assert count == 16
    assert not nll.requires_grad
    torch.testing.assert_close(loss / count, expected)
    torch.testing.assert_close(nll / count, expected.detach())
    wanted = gradients(model, expected)
    assert_same_gradients(gradients(model, loss / count), wanted)


# --- every encoder type ----------------------------------------------------------------------------------------------

ENCODERS = {
    **{kind: {} for kind in ("bert", "roberta", "electra", "distilbert", "albert", "mpnet", "gpt2", "modernbert")},
    **{kind: {} for kind in ("xlm-roberta", "camembert", "bert-generation", "rembert", "data2vec-text")},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "longformer": {"attention_window": [4, 4]},
    "t5": {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_padding_on_either_side_has_no_effect(kind):
    model = OURS.join(small_config(kind, **ENCODERS[kind]), small_decoder_config("bert"))
    given = source(1)
    base = model(**given, labels=target(1), output_hidden_states=True)
    for before, after in ((0, 3), (3, 0), (2, 1)):
        padded = {
            name: F.pad(values, (before, after), value=fill)
            for (name, values), fill in zip(given.items(), (1, 0), strict=True)
        }
        got = model(**padded, labels=target(1), output_hidden_states=True)
        assert gap(got.logits, base.logits) < 1e-3
        for mine, wanted in zip(got.encoder_hidden_states, base.encoder_hidden_states, strict=True):
            assert gap(mine[:, before : before + 9], wanted) < 1e-3
    assert gap(base.logits, model(**source(1, seed=9), labels=target(1)).logits) > 1e-3


def test_batch_may_be_padded_on_both_sides():
    model = OURS.join(small_config("bert"), small_decoder_config("bert"))
    given = source(1)["input_ids"]
    pads = torch.full((1, 4), 1)
    both = torch.cat([torch.cat([pads, given], 1), torch.cat([given, pads], 1)])
    labels = target(1).repeat(2, 1)
    logits = model(both, attention_mask=(both != 1).long(), labels=labels).logits
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-4)


def test_attentions_of_a_left_padded_source_are_rotated_back():
    model = OURS.join(small_config("bert"), small_decoder_config("bert"))
    model.set_attn_implementation("eager")
    given = source(1)
    left = {name: F.pad(values, (3, 0), value=fill) for (name, values), fill in zip(given.items(), (1, 0), strict=True)}
    got, wanted = (model(**g, labels=target(1), output_attentions=True) for g in (left, given))
    for mine, other in zip(got.encoder_attentions, wanted.encoder_attentions, strict=True):
        torch.testing.assert_close(mine[..., 3:, 3:], other, atol=1e-5, rtol=1e-4)
    for mine, other in zip(got.cross_attentions, wanted.cross_attentions, strict=True):
        torch.testing.assert_close(mine[..., 3:], other, atol=1e-5, rtol=1e-4)


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [4096, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_loss_and_gradients_equal_torchs(pair, chunk, smoothing, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    loss, nll, count = pair.training_loss(**batch(), label_smoothing=smoothing)
    logits, labels = pair(**batch()).logits.flatten(0, 1), target().flatten()
    wanted = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss / count, wanted)
    torch.testing.assert_close(nll / count, F.cross_entropy(logits, labels).detach())
    assert_same_gradients(gradients(pair, loss / count), gradients(pair, wanted))


def test_training_computes_logits_only_at_label_positions(pair):
    seen = []
    handle = pair.get_output_embeddings().register_forward_hook(lambda _, args, out: seen.append(out.numel()))
    pair.training_loss(**batch())
    handle.remove()
    assert max(seen) == 16 * 60 < 18 * 60
    assert pair(**batch()).logits.shape == (3, 6, 60)  # the LM head is restored


def test_batch_without_labels_has_zero_loss(pair):
    empty = dict(batch(), labels=torch.full((3, 6), -100))
    loss, nll, count = pair.training_loss(**empty)
    assert (loss.item(), nll.item(), count.item()) == (0.0, 0.0, 0)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in pair.parameters())


def test_likelihood_of_each_example_equals_forward(model):
    labels = target()
    labels[0, 3:] = -100
    nll, tokens = model.likelihood(**source(), labels=labels)
    for row in range(len(labels)):
        alone = {name: value[row : row + 1] for name, value in source().items()}
        loss = model(**alone, labels=labels[row : row + 1]).loss
        assert nll[row] == pytest.approx(float(loss * tokens[row]), rel=1e-4)
    assert tokens.tolist() == (labels != -100).sum(dim=1).tolist()


def test_generation_and_likelihood_without_a_source(model):
    given = batch()
    other = given | {"input_ids": given["input_ids"].flip(0)}
    assert gap(model.likelihood(**given)[0], model.likelihood(**other)[0]) > 1e-3
    alone, _ = model.likelihood(**given, read_source=False)
    assert torch.equal(alone, model.likelihood(**other, read_source=False)[0])
    assert gap(alone, model.likelihood(**given)[0]) > 1e-3
    ids = model.generate_alone(max_new_tokens=4, num_beams=1)
    wanted = torch.tensor([[4]])
    for _ in range(4):
        positions = decoder_positions(model.config, wanted, torch.ones_like(wanted))
        logits = model.decoder(wanted, use_cache=False, **positions).logits[:, -1]
        wanted = torch.cat([wanted, logits.argmax(-1, keepdim=True)], dim=1)
        if wanted[0, -1] == 2:
            break
    assert torch.equal(ids[:, :4], wanted[:, :4])  # BART's configs force an end token at the end
    assert gap(model.likelihood(**given)[0], alone) > 1e-3  # the source is used again


def test_accumulated_training_loss_equals_one_batch(pair):
    loss, _, count = pair.training_loss(**batch())
    parts = [{name: tensor[rows] for name, tensor in batch().items()} for rows in (slice(0, 1), slice(1, 3))]
    total = sum(pair.training_loss(**part)[0] for part in parts) / count
    assert_same_gradients(gradients(pair, total), gradients(pair, loss / count))


def test_bf16_autocast_keeps_the_loss_in_float32(pair):
    wanted, _, count = pair.training_loss(**batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, nll, _ = pair.training_loss(**batch(), label_smoothing=0.1)
        plain = pair(**batch())
    assert loss.dtype == nll.dtype == plain.loss.dtype == torch.float32
    assert abs(nll - wanted) / count < 0.05
    assert abs(plain.loss - wanted / count) < 0.05
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in pair.parameters())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta", "bert-generation", "electra"])
def test_gradient_checkpointing_does_not_change_gradients(kind):
    dropout_free = {
        name: 0.0 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob") if kind != "gpt2"
    } or {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    encoder = small_config("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = OURS.join(encoder, small_decoder_config(kind, **dropout_free)).train()
    wanted = gradients(model, model.training_loss(**batch())[0])
    model.activation_checkpointing_enable()
    assert model.encoder.is_activation_checkpointing
    assert model.decoder.is_activation_checkpointing
    assert_same_gradients(gradients(model, model.training_loss(**batch())[0]), wanted)
    assert_same_gradients(gradients(model, model(**batch()).loss * 16), wanted, atol=1e-4)
    model.activation_checkpointing_disable()
    assert not model.decoder.is_activation_checkpointing


# --- the object ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_are_equal_and_independent(clone, tied):
    model = OURS.join(small_config("bert"), small_decoder_config("bert", vocab_size=50), tie_encoder_decoder=tied)
    given = source() | {"labels": target().clamp(max=49)}
    before = model(**given).logits.detach()
    other = clone(model)
    torch.testing.assert_close(other(**given).logits, before)
    assert len(list(other.parameters())) == len(list(model.parameters()))
    assert other.encoder.config is other.config.encoder
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.testing.assert_close(model(**given).logits, before)


def test_shared_weights_get_the_gradients_of_both_submodels():
    vocabulary = {"vocab_size": 50}
    shared = OURS.join(small_config("bert"), small_decoder_config("bert", **vocabulary), tie_encoder_decoder=True)
    separate = OURS.join(small_config("bert"), small_decoder_config("bert", **vocabulary))
    separate.load_state_dict(shared.state_dict())
    given = source() | {"labels": target().clamp(max=49)}
    for model in (shared, separate):
        model(**given).loss.backward()
    name = "encoder.layer.1.attention.self.query.weight"
    both = [separate.get_parameter(f"{prefix}.{name}").grad for prefix in ("encoder", "decoder.bert")]
    torch.testing.assert_close(shared.get_parameter(f"decoder.bert.{name}").grad, sum(both), atol=1e-5, rtol=1e-3)


def test_arguments_of_generate_override_the_config(pair):
    assert (pair.generate(**source(), max_new_tokens=2, decoder_start_token_id=9)[:, 0] == 9).all()
    own = GenerationConfig(max_new_tokens=2, decoder_start_token_id=8)
    assert (pair.generate(**source(), generation_config=own)[:, 0] == 8).all()
    without_ids = GenerationConfig(max_new_tokens=2, num_beams=2)
    assert (pair.generate(**source(), generation_config=without_ids)[:, 0] == 4).all()
    assert (pair.generate(**source(), max_new_tokens=2)[:, 0] == 4).all()


def test_generation_stops_at_the_end_token_and_pads(pair):
    with torch.no_grad():
        pair.get_output_embeddings().weight.zero_()  # tied to the embeddings: all logits are equal, and argmax is 0
    generated = pair.generate(**source(), max_new_tokens=5, eos_token_id=0)
    assert generated.tolist() == [[4, 0]] * 3


def test_dtype_and_attention_reach_both_submodels(pair, tmp_path):
    pair.save_pretrained(tmp_path)
    for implementation in ("eager", "sdpa"):
        again = OURS.model.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation=implementation)
        assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
        found = {part.config._attn_implementation for part in (again.encoder, again.decoder)}
        assert found == {implementation}
        assert again.generation_config.decoder_start_token_id == 4


def test_missing_start_id_is_reported():
    model = OURS.model(OURS.config(encoder=small_config("bert"), decoder=small_decoder_config("bert")))
    with pytest.raises(ValueError, match=r"decoder_start_token_id|pad_token_id"):
        model(**batch())


def test_forward_without_labels_has_no_loss_and_no_warning(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = pair(**source(), decoder_input_ids=target().clamp(min=5))
    assert output.loss is None
    assert "loss" not in output
