"""A prompt after the start id: no labels in training, the beginning of everything generated."""

import pytest
import torch
from tiny import IDS, OURS, gap, small_config, small_decoder_config, source, target

PROMPT = [7, 8, 9]
MODELS = {
    "bert": lambda **ids: OURS.join(small_config("bert"), small_decoder_config("bert"), **ids),
    "gpt2": lambda **ids: OURS.join(small_config("bert"), small_decoder_config("gpt2", width=48), **ids),
    "roberta": lambda **ids: OURS.join(small_config("bert"), small_decoder_config("roberta"), **ids),
    "grafted": lambda **ids: OURS.join(small_config("bert"), small_decoder_config("llama"), **ids),
}


@pytest.fixture(params=MODELS)
def models(request):
    """The same model without and with a prompt."""
    torch.manual_seed(1)
    plain = MODELS[request.param]()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if "gate" in name:
                parameter.fill_(1.0)
    prompted = MODELS[request.param](prompt_ids=PROMPT)
    prompted.load_state_dict(plain.state_dict())
    return plain, prompted


def shifted_by_hand(labels):
    """Return the decoder's inputs and the labels with the prompt, in plain Python."""
    rows, wanted = [], []
    for row in labels.tolist():
        rows.append([IDS["decoder_start_token_id"], *PROMPT, *(1 if i == -100 else i for i in row[:-1])])
        wanted.append([-100] * len(PROMPT) + row)
    mask = torch.ones(len(rows), len(rows[0])).long()
    mask[:, 1 + len(PROMPT) :] = (labels[:, :-1] != -100).long()
    return torch.tensor(rows), mask, torch.tensor(wanted)


def test_training_equals_a_plain_model_whose_inputs_begin_with_the_prompt(models):
    plain, prompted = models
    labels = target()
    ids, mask, wanted = shifted_by_hand(labels)
    expected = plain(**source(), decoder_input_ids=ids, decoder_attention_mask=mask, labels=wanted)
    found = prompted(**source(), labels=labels)
    assert torch.equal(prompted.prepare_decoder_input_ids_from_labels(labels), ids)
    assert gap(found.logits[mask == 1], expected.logits[mask == 1]) < 1e-5
    torch.testing.assert_close(found.loss, expected.loss)
    loss = prompted.training_loss(**source(), labels=labels)
    torch.testing.assert_close(loss.mean, expected.loss, rtol=1e-5, atol=1e-6)
    assert loss.tokens == (labels != -100).sum()
    bucketed = prompted.training_loss(**source(), labels=labels.flip(0), buckets=[(1, 4), (2, 6)])
    plain_order = {name: value.flip(0) for name, value in source().items()}
    torch.testing.assert_close(
        prompted.training_loss(**plain_order, labels=labels.flip(0), buckets=[(1, 4), (2, 6)]).summed,
        loss.summed,
        rtol=1e-5,
        atol=1e-5,
    )
    assert bucketed.tokens == loss.tokens
    nats, tokens = prompted.likelihood(**source(), labels=labels)
    torch.testing.assert_close(nats.sum() / tokens.sum(), expected.loss, rtol=1e-5, atol=1e-6)


def test_a_collator_that_prepares_the_decoders_inputs_gets_the_same_loss(models):
    _, prompted = models
    labels = torch.randint(5, 60, (3, 5))
    ids = prompted.prepare_decoder_input_ids_from_labels(labels)
    given = prompted(**source(), decoder_input_ids=ids, labels=labels)
    torch.testing.assert_close(given.loss, prompted(**source(), labels=labels).loss)


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_generation_begins_with_the_prompt(models, options):
    plain, prompted = models
    options = options | {"max_new_tokens": 6, "length_penalty": 2.0 if options["num_beams"] > 1 else None}
    first = torch.tensor([[IDS["decoder_start_token_id"], *PROMPT]])
    expected = plain.generate(**source(), decoder_input_ids=first.expand(3, -1), **options)
    found = prompted.generate(**source(), **options)
    assert torch.equal(found, expected)
    assert prompted.start_length == 4
    assert (found[:, :4] == first).all()
    assert found.shape[1] <= 10
    alone = prompted.generate_alone(**options)
    assert (alone[:, :4] == first).all()
    given = torch.tensor([[4, 11]]).expand(3, -1)
    assert torch.equal(
        prompted.generate(**source(), decoder_input_ids=given, **options),
        plain.generate(**source(), decoder_input_ids=given, **options),
    )


def test_generation_is_that_of_the_training(models):
    """The first generated token is the most probable one at the first label position."""
    _, prompted = models
    labels = target()
    best = prompted(**source(), labels=labels).logits[:, len(PROMPT)].argmax(-1)
    found = prompted.generate(**source(), max_new_tokens=1, num_beams=1)
    assert found[:, -1].tolist() == best.tolist()


def test_another_start_id_for_each_source_keeps_the_prompt(models):
    _, prompted = models
    found = prompted.generate(**source(), decoder_start_token_id=[20, 21, 22], max_new_tokens=2, num_beams=2)
    assert found[:, :4].tolist() == [[start, *PROMPT] for start in (20, 21, 22)]


def test_a_saved_model_keeps_its_prompt(models, tmp_path):
    _, prompted = models
    prompted.save_pretrained(tmp_path)
    loaded = OURS.model.from_pretrained(tmp_path)
    assert loaded.config.prompt_ids == PROMPT
    assert torch.equal(
        loaded.generate(**source(), max_new_tokens=4, num_beams=2),
        prompted.generate(**source(), max_new_tokens=4, num_beams=2),
    )
