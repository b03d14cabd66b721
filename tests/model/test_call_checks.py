"""Misleading calls log one warning; outputs that the joint config requests are returned."""

import logging

import pytest
import torch
import transformers
from tiny import OURS, small_config, small_decoder_config, source, target

from warmstart.model import call_checks


@pytest.fixture(autouse=True)
def nothing_warned_yet(monkeypatch):
    monkeypatch.setattr(call_checks, "_warned", set())


def pair(decoder="bert", attention=None, **joint):
    torch.manual_seed(0)
    model = OURS.join(small_config("bert"), small_decoder_config(decoder), **joint)
    if attention is not None:
        model.set_attn_implementation(attention)
    return model


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == call_checks.__name__]


@torch.no_grad()
def test_labels_as_decoder_input_ids_are_reported_once(caplog):
    model, ids = pair(), target().clamp(min=5)
    masked = ids.clone()
    masked[-1, 4:] = -100
    for labels in (ids, ids.clone(), masked):
        caplog.clear()
        call_checks._warned.clear()
        for _ in range(2):
            model(**source(), decoder_input_ids=ids, labels=labels)
        (message,) = warnings_of(caplog)
        assert "Leave decoder_input_ids out" in message


@torch.no_grad()
def test_shifted_labels_are_not_reported(caplog):
    model, labels = pair(), target()
    model(**source(), labels=labels)
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    model(**source(), decoder_input_ids=shifted, labels=labels)
    model(**source(), decoder_input_ids=shifted)
    ends = torch.full((3, 2), 2)  # start = end, and an empty summary: the shifted labels are the labels
    model(**source(), decoder_input_ids=ends, labels=ends)
    model(**source(), decoder_input_ids=ends, labels=torch.tensor([[2, -100]] * 3))
    assert warnings_of(caplog) == []


def losses(model):
    """Compute each kind of loss."""
    model(**source(), labels=target())
    model.training_loss(**source(), labels=target())


BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}


@pytest.mark.parametrize(("kind", "sizes"), [("bert", {}), ("bart", BART)])
def test_a_loss_with_gradients_in_evaluation_mode_is_reported_once(caplog, kind, sizes):
    model = OURS.join(small_config(kind, **sizes), small_decoder_config(kind, **sizes))
    with torch.no_grad():
        losses(model)
    losses(model.train())
    model.eval()(**source(), decoder_input_ids=target().clamp(min=0))
    assert warnings_of(caplog) == []
    for _ in range(2):
        losses(model)
    (message,) = warnings_of(caplog)
    assert "call model.train() first" in message


def test_evaluation_mode_of_a_model_without_dropout_is_not_reported(caplog):
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = OURS.join(small_config("bert", **none), small_decoder_config("bert", **none))
    losses(model)
    assert warnings_of(caplog) == []


def test_the_check_for_dropout_breaks_no_graph(caplog):
    model = pair()

    @torch.compile(fullgraph=True, backend="eager")
    def doubled(values):
        call_checks.warn_without_dropout(model)
        return values * 2

    assert doubled(torch.ones(2, requires_grad=True)).tolist() == [2, 2]
    assert warnings_of(caplog) == []


@torch.no_grad()
def test_missing_attention_weights_are_reported(caplog):
    caplog.set_level(logging.WARNING)
    model = pair(attention="sdpa")
    for _ in range(2):
        model(**source(), labels=target(), output_attentions=True)
    assert [message.split(" with ")[0].split()[-1] for message in warnings_of(caplog)] == ["encoder", "decoder"]
    assert all('set_attn_implementation("eager")' in message for message in warnings_of(caplog))
    caplog.clear()
    model.set_attn_implementation("eager")
    found = model(**source(), labels=target(), output_attentions=True)
    assert [len(found[name]) for name in ("encoder_attentions", "decoder_attentions", "cross_attentions")] == [2, 2, 2]
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("decoder", ["bert", "gpt2"])
def test_outputs_requested_by_the_joint_config_are_returned(decoder):
    model = pair(decoder, attention="eager")
    model.config.output_hidden_states = True
    model.config.output_attentions = True
    found = model(**source(), labels=target())
    assert len(found.encoder_hidden_states) == len(found.decoder_hidden_states) == 3
    assert len(found.encoder_attentions) == len(found.decoder_attentions) == len(found.cross_attentions) == 2
    quiet = model(**source(), labels=target(), output_hidden_states=False, output_attentions=False)
    assert quiet.decoder_hidden_states is None
    assert quiet.decoder_attentions is None
    plain = pair(decoder, attention="eager").generate(**source(), max_new_tokens=4)
    assert torch.equal(model.generate(**source(), max_new_tokens=4), plain)


def test_config_of_a_submodel_has_an_effect():
    model = pair()
    model.config.decoder.output_hidden_states = True
    found = model(**source(), labels=target())
    assert len(found.decoder_hidden_states) == 3
    assert found.encoder_hidden_states is None


def test_positional_arguments_go_to_the_encoder_as_in_transformers(tmp_path):
    transformers.BertModel(small_config("bert")).save_pretrained(tmp_path / "encoder")
    transformers.BertLMHeadModel(small_decoder_config("bert")).save_pretrained(tmp_path / "decoder")
    folders = str(tmp_path / "encoder"), str(tmp_path / "decoder")
    for positional in ((), (True,), (False,)):
        model = OURS.model.from_encoder_decoder_pretrained(*folders, *positional)
        assert model.encoder.pooler is None
        assert not {name for name in model._new_parameters if name.startswith("encoder.")}
