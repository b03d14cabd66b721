"""A decoder without an encoder: its loss and its texts are those of a causal language model on the whole sequence."""

import pytest
import torch
import transformers
from transformers.generation.streamers import BaseStreamer

from warmstart import DecoderOnlyModel, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.model.decoder_only import DecoderOnlyConfig
from warmstart.model.variants import model_class

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
SPECIAL = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
DECODERS = {
    "gpt2": transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40, n_positions=24, **SPECIAL),
    "llama": transformers.LlamaConfig(intermediate_size=24, max_position_embeddings=24, **SIZES, **SPECIAL),
    "opt": transformers.OPTConfig(ffn_dim=24, max_position_embeddings=24, word_embed_proj_dim=16, **SIZES, **SPECIAL),
    "bert": transformers.BertConfig(intermediate_size=24, max_position_embeddings=24, **SIZES, **SPECIAL),
    "roformer": transformers.RoFormerConfig(intermediate_size=24, max_position_embeddings=24, **SIZES, **SPECIAL),
}
IDS = {
    "separate": {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "one": {"decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 2},  # GPT-2's tokenizer
}


def model_of(kind="gpt2", ids="separate"):
    torch.manual_seed(1)
    model = DecoderOnlyModel(DecoderOnlyConfig(decoder=DECODERS[kind], **IDS[ids])).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # tokens that differ clearly in their probability
    return model


@pytest.fixture
def batch():
    """Three documents of 7, 4 and 6 tokens with summaries of 5, 5 and 3 tokens, padded on the right."""
    torch.manual_seed(0)
    ids, labels = torch.randint(3, 40, (3, 7)), torch.randint(3, 40, (3, 5))
    mask = (torch.arange(7) < torch.tensor([7, 4, 6])[:, None]).long()
    labels = labels.masked_fill(torch.arange(5) >= torch.tensor([5, 5, 3])[:, None], -100)
    return ids.masked_fill(mask == 0, 0), mask, labels


def left(ids, mask):
    """The same documents, padded on the left."""
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def by_hand(model, document, summary):
    """Negative log-likelihood of a summary after its document and the separator, from the decoder's own logits."""
    begins = torch.tensor([model.config.decoder_start_token_id, *(model.config.prompt_ids or [])])
    logits = model.decoder(input_ids=torch.cat([document, begins, summary[:-1]])[None]).logits[0].float()
    first = len(document) + len(begins) - 1
    return torch.nn.functional.cross_entropy(logits[first : first + len(summary)], summary, reduction="sum").detach()


def all_by_hand(model, ids, mask, labels):
    return torch.stack([by_hand(model, i[m == 1], t[t != -100]) for i, m, t in zip(ids, mask, labels, strict=True)])


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_the_loss_is_that_of_the_summary_tokens_of_a_causal_language_model(kind, ids, batch):
    model = model_of(kind, ids)
    source, mask, labels = batch
    expected = all_by_hand(model, *batch)
    summed, nll, tokens = model.training_loss(source, mask, labels)
    assert int(tokens) == 13
    torch.testing.assert_close(torch.stack([summed, nll]), expected.sum().expand(2))
    torch.testing.assert_close(model.likelihood(source, mask, labels)[0], expected)
    torch.testing.assert_close(model.likelihood(*left(source, mask), labels)[0], expected)
    torch.testing.assert_close(model(source, mask, labels).loss, expected.sum() / 13)
    order, buckets = [2, 0, 1], [(1, 3), (2, 5)]  # the training loader sorts by length
    found = model.training_loss(source[order], mask[order], labels[order], buckets=buckets)
    torch.testing.assert_close(found.summed, summed)


@torch.no_grad()
def test_a_prompt_stands_between_document_and_summary_and_is_not_learned(batch):
    model = model_of()
    model.config.prompt_ids = [7, 9]
    source, mask, labels = batch
    expected = all_by_hand(model, *batch)
    torch.testing.assert_close(model.likelihood(source, mask, labels)[0], expected)
    torch.testing.assert_close(model(source, mask, labels).loss, expected.sum() / 13)
    found = model.generate(source, attention_mask=mask, max_new_tokens=4)
    assert model.start_length == 3
    assert found[:, :3].tolist() == [[1, 7, 9]] * 3
    begins = torch.cat([source[:1], torch.tensor([[1, 7, 9]])], dim=1)
    alone = model.decoder.generate(begins, max_new_tokens=4, eos_token_id=2, pad_token_id=0)
    assert found[0, 3:].tolist() == alone[0, begins.shape[1] :].tolist()


def test_without_its_document_a_summary_follows_the_separator_only(batch):
    model = model_of()
    found, tokens = model.likelihood(*batch, read_source=False)
    nothing = torch.zeros(0, dtype=torch.long)
    torch.testing.assert_close(found, torch.stack([by_hand(model, nothing, row[row != -100]) for row in batch[2]]))
    assert tokens.tolist() == [5, 5, 3]


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("kind", DECODERS)
def test_texts_do_not_depend_on_padding_or_on_the_other_documents(kind, ids, batch):
    model, (source, mask, _) = model_of(kind, ids), batch
    rotated, rotated_mask = left(source, mask)
    for options in ({"num_beams": 1}, {"num_beams": 3, "length_penalty": 2.0}):
        options |= {"max_new_tokens": 6, "do_sample": False}
        together = model.generate(source, attention_mask=mask, **options)
        assert torch.equal(together, model.generate(rotated, attention_mask=rotated_mask, **options))
        for row, document, seen in zip(together, source, mask, strict=True):
            document = document[seen == 1][None]
            (alone,) = model.generate(document, attention_mask=torch.ones_like(document), **options)
            assert row[: len(alone)].tolist() == alone.tolist()
            assert set(row[len(alone) :].tolist()) <= {IDS[ids]["pad_token_id"], 2}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", DECODERS)
def test_texts_are_those_that_transformers_generates_after_the_document_and_the_separator(kind, beams, batch):
    model, (source, mask, _) = model_of(kind), batch
    options = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
    for document, seen in zip(source, mask, strict=True):
        prompt = torch.cat([document[seen == 1], torch.tensor([1])])[None]
        theirs = model.decoder.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        ours = model.generate(document[None], attention_mask=seen[None], max_new_tokens=6, num_beams=beams)
        assert ours[0].tolist() == theirs[0, prompt.shape[1] - 1 :].tolist()


@pytest.mark.parametrize("beams", [1, 3])
def test_blocked_n_grams_are_those_of_the_summary(beams, batch):
    """Otherwise a summary could not copy the words of its document."""
    model, (source, mask, _) = model_of(), batch
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "num_beams": beams}
    free = model.generate(source, attention_mask=mask, **options)
    assert any(len(set(row[1:].tolist())) < 12 for row in free)  # there is a repetition to block
    rows = model.generate(source, attention_mask=mask, no_repeat_ngram_size=1, **options)
    assert all(len(set(row.tolist())) == 13 for row in rows)
    assert any(set(row.tolist()) & set(document.tolist()) - {0} for row, document in zip(rows, source, strict=True))


def test_a_document_is_cut_to_leave_positions_for_separator_and_summary():
    model = model_of()
    torch.manual_seed(2)
    source, labels = torch.randint(3, 40, (2, 30)), torch.randint(3, 40, (2, 6))
    labels[1, 2:] = -100
    mask = torch.ones_like(source)
    found, _ = model.likelihood(source, mask, labels)
    expected = [by_hand(model, source[0, :18], labels[0]), by_hand(model, source[1, :22], labels[1, :2])]
    torch.testing.assert_close(found, torch.stack(expected))
    options = {"max_new_tokens": 6, "min_new_tokens": 6}
    ids = model.generate(source, attention_mask=mask, **options)
    assert torch.equal(ids, model.generate(source[:, :18], attention_mask=mask[:, :18], **options))
    assert ids.shape == (2, 7)


def test_lengths_count_the_target_as_in_a_joint_model(batch):
    model, (source, mask, _) = model_of(), batch
    ids = model.generate(source, attention_mask=mask, max_length=5, min_length=5)
    four = {"max_new_tokens": 4, "min_new_tokens": 4}
    assert torch.equal(ids, model.generate(source, attention_mask=mask, **four))
    assert model.generate_alone(max_new_tokens=3, min_new_tokens=3).shape == (1, 4)
    two = {"max_new_tokens": 2, "min_new_tokens": 2}
    assert torch.equal(model.generate(source, attention_mask=mask, decoder_input_ids=ids[:, :3], **two), ids)
    several = model.generate(source, attention_mask=mask, num_beams=2, num_return_sequences=2, max_new_tokens=3)
    assert len(several) == 6
    scored = model.generate(source, attention_mask=mask, return_dict_in_generate=True, **four)
    assert torch.equal(scored.sequences, ids)


def test_an_assistant_does_not_change_the_ids(batch):
    model, (ids, mask, _) = model_of(), batch
    search = {"input_ids": ids[:1], "attention_mask": mask[:1], "max_new_tokens": 6}
    found = model.generate(**search, assistant_model=model_of("llama").decoder)
    assert torch.equal(found, model.generate(**search))


def test_resized_embeddings_are_those_of_the_source_too(tmp_path, batch):
    model, (ids, mask, labels) = model_of(), batch
    model.resize_token_embeddings(44)
    assert model.get_output_embeddings().weight.shape[0] == model.config.encoder.vocab_size == 44
    model.save_pretrained(tmp_path)
    again = DecoderOnlyModel.from_pretrained(tmp_path)
    assert torch.equal(again.likelihood(ids, mask, labels)[0], model.likelihood(ids, mask, labels)[0])


def test_a_streamer_gets_the_ids_of_the_summary(batch):
    class Kept(BaseStreamer):
        ids, ended = (), False

        def put(self, value):
            self.ids = (*self.ids, *value.reshape(-1).tolist())

        def end(self):
            self.ended = True

    model, kept = model_of(), Kept()
    ids = model.generate(batch[0][:1], streamer=kept, max_new_tokens=4, min_new_tokens=4)
    assert list(kept.ids) == ids[0].tolist()
    assert kept.ended


def test_it_is_saved_and_loaded_as_a_folder(tmp_path, batch):
    model = model_of()
    model.save_pretrained(tmp_path)
    loaded = DecoderOnlyModel.from_pretrained(tmp_path)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert {name.partition(".")[0] for name in loaded.state_dict()} == {"decoder"}
    torch.testing.assert_close(loaded.likelihood(*batch), model.likelihood(*batch))
    assert type(transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)) is DecoderOnlyModel
    assert DecoderOnlyModel.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert model_class(model.config.to_dict()) is DecoderOnlyModel
    assert model_class({"model_type": "encoder-decoder"}) is EncoderDecoderModel


def test_every_weight_is_of_the_decoder_and_trains(batch):
    model = model_of().train()
    model.training_loss(*batch).mean.backward()
    assert all(weight.grad is not None and name.startswith("decoder.") for name, weight in model.named_parameters())
    assert not any("cross" in name for name, _ in model.named_parameters())


def test_a_decoder_whose_positions_follow_its_pad_id_is_refused():
    config = transformers.RobertaConfig(intermediate_size=24, **SIZES)
    with pytest.raises(ValueError, match="A roberta decoder needs an encoder"):
        DecoderOnlyModel(DecoderOnlyConfig(decoder=config, **IDS["separate"]))


@pytest.mark.parametrize(
    "kind",
    [
        *("rwkv", "reformer", "recurrent_gemma", "trocr", "xlm", "roformer with rotary_value"),
        *("xlstm", "deepseek_v4"),
    ],
)
def test_a_decoder_that_reads_the_padding_before_a_prompt_is_refused(kind):
    kind, *flags = kind.split(" with ")
    config = tiny_config(kind)
    for flag in flags:
        setattr(config, flag, True)
    with pytest.raises(ValueError, match=f"A {kind} decoder needs an encoder: .*Use a decoder such as gpt2"):
        DecoderOnlyModel(DecoderOnlyConfig(decoder=config, **IDS["separate"]))


def test_a_decoder_that_also_reads_images_is_refused_by_its_name():
    with pytest.raises(ValueError, match=r"'gemma3' cannot be a decoder: .* is a multimodal model"):
        DecoderOnlyModel(DecoderOnlyConfig(decoder=tiny_config("gemma3"), **IDS["separate"]))


def test_the_encoder_that_does_not_exist_is_never_called(batch):
    with pytest.raises(ValueError, match="has no encoder"):
        model_of().encoder(batch[0])
    with pytest.raises(ValueError, match="takes input_ids, attention_mask and labels, but got encoder_outputs"):
        model_of()(batch[0], labels=batch[2], encoder_outputs=1)
