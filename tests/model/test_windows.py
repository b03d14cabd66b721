"""The decoder reads the windows of a source together; windows that a source does not have change nothing."""

import pytest
import torch
from tiny import OURS, SOURCE_VOCABULARY, gap, small_config, small_decoder_config, source, target

MODELS = {
    "bert with its own cross-attention": lambda: OURS.join(small_config("bert"), small_decoder_config("bert")),
    "gpt2": lambda: OURS.join(small_config("distilbert"), small_decoder_config("gpt2", width=48)),
    "grafted": lambda: OURS.join(small_config("bert"), small_decoder_config("llama")),
    "rotary encoder": lambda: OURS.join(small_config("modernbert"), small_decoder_config("gpt2")),
}


@pytest.fixture(params=MODELS)
def model(request):
    model = MODELS[request.param]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate" in name:
                parameter.fill_(1.0)  # so that grafted layers read the source
    return model


def windows(batch_size=3, count=3, length=7):
    """Return sources of three windows; the last source has one and a half, the second has two."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(5, SOURCE_VOCABULARY, (batch_size, count, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:2, 2:] = 0
    mask[2:, 1, 3:] = 0
    mask[2:, 2:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


def test_states_are_those_of_each_window_by_itself(model):
    batch = windows()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    together = model(**batch, labels=target()).encoder_last_hidden_state.view(*ids.shape, -1)
    for row, window in ((0, 0), (0, 2), (2, 1)):
        seen = mask[row, window] == 1
        alone = model.encoder(ids[row, window][seen][None]).last_hidden_state[0]
        torch.testing.assert_close(together[row, window][seen], alone, rtol=1e-4, atol=1e-5)


def test_one_window_equals_a_source_without_windows(model):
    plain, labels = source(), target()
    batch = {name: value[:, None] for name, value in plain.items()}
    assert torch.equal(model(**batch, labels=labels).logits, model(**plain, labels=labels).logits)
    assert torch.equal(
        model.training_loss(**batch, labels=labels).summed, model.training_loss(**plain, labels=labels).summed
    )
    assert torch.equal(model.generate(**batch, max_new_tokens=5), model.generate(**plain, max_new_tokens=5))


def test_logits_equal_those_of_a_decoder_that_gets_the_joined_states(model):
    batch, labels = windows(), target()
    mask = batch["attention_mask"].flatten(1)
    states = model(**batch, labels=labels).encoder_last_hidden_state
    # The states of the positions that are not masked, without the gaps between them.
    rows = [state[seen == 1] for state, seen in zip(states, mask, strict=True)]
    packed = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    packed_mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)).long() for row in rows], batch_first=True)
    expected = model(encoder_outputs=(packed,), attention_mask=packed_mask, labels=labels)
    assert gap(model(**batch, labels=labels).logits, expected.logits) < 1e-4
    mean = model.training_loss(**batch, labels=labels).mean
    torch.testing.assert_close(mean, expected.loss, rtol=1e-5, atol=1e-6)
    nats, tokens = model.likelihood(**batch, labels=labels)
    torch.testing.assert_close(nats.sum() / tokens.sum(), expected.loss, rtol=1e-5, atol=1e-6)


def test_buckets_do_not_change_the_loss(model):
    batch, labels = windows(), target().flip(0)
    whole = model.training_loss(**batch, labels=labels).summed
    bucketed = model.training_loss(**batch, labels=labels, buckets=[(1, 4), (2, 6)]).summed
    torch.testing.assert_close(whole, bucketed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_padding_and_batch_mates_change_no_generated_id(model, beams):
    batch = windows()

    def generated(ids, mask):
        return model.generate(ids, attention_mask=mask, num_beams=beams, max_new_tokens=8, eos_token_id=None)

    together = generated(batch["input_ids"], batch["attention_mask"])
    for row, count in enumerate((3, 2, 2)):
        ids, mask = (batch[name][row : row + 1, :count] for name in ("input_ids", "attention_mask"))
        assert torch.equal(generated(ids, mask), together[row : row + 1])
    more = {
        name: torch.nn.functional.pad(value, (0, 2, 0, 2), value=filler)
        for (name, value), filler in zip(batch.items(), (1, 0), strict=True)
    }
    assert torch.equal(generated(more["input_ids"], more["attention_mask"]), together)
    assert torch.equal(generated(batch["input_ids"], None), together)  # the mask is inferred from the pad id


def test_what_fills_the_padding_changes_no_loss(model):
    batch, labels = windows(), target()
    loss = model.training_loss(**batch, labels=labels)
    other = batch["input_ids"].where(batch["attention_mask"] == 1, 9)
    changed = model.training_loss(other, batch["attention_mask"], labels)
    assert torch.equal(loss.summed, changed.summed)
    row = {name: value[1:2, :2] for name, value in batch.items()}
    alone, _ = model.likelihood(**row, labels=labels[1:2])
    torch.testing.assert_close(alone, model.likelihood(**batch, labels=labels)[0][1:2], rtol=1e-5, atol=1e-5)


def test_a_fact_in_the_second_window_changes_loss_gradient_and_output(model):
    batch, labels = windows(batch_size=1), target(batch_size=1)
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, 1, 3] = 40

    def loss_and_gradient(one):
        model.zero_grad()
        loss = model.training_loss(**one, labels=labels).summed
        loss.backward()
        return loss.detach(), model.encoder.get_input_embeddings().weight.grad.clone()

    (first, gradient), (second, changed) = loss_and_gradient(batch), loss_and_gradient(other)
    assert abs(first - second) > 1e-4
    assert gap(gradient, changed) > 1e-4
    of_second = batch["input_ids"][0, 1].unique()
    assert (gradient[of_second].abs().sum(dim=1) > 0).all()
    logits = [model(**one, labels=labels).logits for one in (batch, other)]
    assert gap(*logits) > 1e-3


def test_options_that_compare_with_the_source_read_all_windows():
    shared = small_config("bert", vocab_size=60)
    model = OURS.join(shared, small_decoder_config("bert"))
    model.decoder.get_input_embeddings().weight = model.encoder.get_input_embeddings().weight
    batch = windows(batch_size=1, count=2, length=30)
    ids = model.generate(**batch, encoder_no_repeat_ngram_size=1, max_new_tokens=6, num_beams=2, eos_token_id=None)
    assert not set(ids[0, 1:].tolist()) & set(batch["input_ids"].flatten().tolist())


def test_flops_count_each_window_by_itself():
    from warmstart.profiling.flops import lengths_seen

    batch = windows() | {"labels": target()}
    seen = lengths_seen(batch, window=2**31)
    tokens = [[7, 7, 7], [7, 7, 0], [7, 3, 0]]
    assert seen[0] == sum(map(sum, tokens))
    assert seen[2] == sum(t * t for row in tokens for t in row)
    assert seen[4] == sum(sum(row) * n for row, n in zip(tokens, (6, 6, 4), strict=True))
