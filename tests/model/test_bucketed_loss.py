"""Decoding a batch in target-length buckets gives the same loss and gradients, with less padding."""

import pytest
import torch
from test_grafting import build
from tiny import OURS, small_config, small_decoder_config, source

from warmstart.model import loss as loss_module

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GPT2 = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
PAIRS = {
    "native": lambda: OURS.join(
        small_config("bert", **NO_DROPOUT), small_decoder_config("gpt2", 24, **GPT2)
    ),  # with a projection
    # Positions are computed from the mask of each bucket.
    "positions": lambda: OURS.join(
        small_config("bert", **NO_DROPOUT), small_decoder_config("roberta", **NO_DROPOUT), decoder_start_token_id=1
    ),
    "grafted": lambda: build("llama"),
    "scaled head": lambda: build("gemma2"),
    "state space": lambda: build("mamba"),
}
LENGTHS = [2, 2, 3, 3, 8]
BUCKETS = [(4, 3), (1, 8)]


@pytest.fixture(params=PAIRS)
def model(request):
    torch.manual_seed(0)
    return PAIRS[request.param]().double()


def batch():
    labels = torch.randint(5, 60, (5, 8), generator=torch.Generator().manual_seed(2))
    for row, length in enumerate(LENGTHS):
        labels[row, length:] = -100
    return source(5) | {"labels": labels}


def trained(model, **options):
    model.zero_grad()
    loss, nll, tokens = model.training_loss(**batch(), **options)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), nll, tokens, gradients


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # RMS norms and scans are always in float32


@pytest.mark.parametrize("chunk", [4096, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_equal_those_of_one_bucket(model, smoothing, chunk, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    whole = trained(model, label_smoothing=smoothing)
    assert whole[2] == sum(LENGTHS)
    assert len(whole[3]) > 10
    assert_same(trained(model, label_smoothing=smoothing, buckets=BUCKETS), whole)


def test_activation_checkpointing_with_buckets(model):
    whole = trained(model.train())
    model.activation_checkpointing_enable()
    assert_same(trained(model, buckets=BUCKETS), whole)


def test_encoder_runs_once_and_decoder_once_per_bucket(model):
    read = {"encoder": [], "decoder": []}
    for name, shapes in read.items():
        embeddings = getattr(model, name).get_input_embeddings()
        embeddings.register_forward_hook(lambda _, args, output, shapes=shapes: shapes.append(tuple(args[0].shape)))
    model.training_loss(**batch())  # also calls the decoder with one token, to examine the LM head
    for shapes in read.values():
        shapes.clear()
    model.training_loss(**batch(), buckets=BUCKETS)
    assert read == {"encoder": [(5, 9)], "decoder": BUCKETS}


def test_logits_are_recomputed_if_the_buckets_exceed_a_chunk(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK", 12)
    model, made = PAIRS["native"](), []
    loss, _, _ = model.training_loss(**batch(), buckets=BUCKETS)
    model.get_output_embeddings().register_forward_hook(lambda _, args, output: made.append(len(output)))
    loss.backward()
    assert sorted(made) == [6, 12]  # recomputed in chunks


def test_buckets_that_do_not_cover_the_batch_are_refused():
    with pytest.raises(RuntimeError, match="split"):
        PAIRS["native"]().training_loss(**batch(), buckets=[(4, 3)])
