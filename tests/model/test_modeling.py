"""The joint model gives the results of transformers' class wherever that class is correct."""

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config, RobertaConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel

BERT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
GPT2 = {
    "vocab_size": 60,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PAIRS = {
    "bert-bert": lambda: (BertConfig(**BERT), BertConfig(**BERT)),
    "bert-gpt2": lambda: (BertConfig(**BERT), GPT2Config(**GPT2)),
    "roberta-bert": lambda: (RobertaConfig(**BERT), BertConfig(**BERT)),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """Our model and transformers' model with the same weights."""
    torch.manual_seed(0)
    ours = EncoderDecoderModel(
        EncoderDecoderConfig(*(), **dict(zip(("encoder", "decoder"), PAIRS[request.param](), strict=True)), **IDS)
    )
    theirs_config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*PAIRS[request.param](), **IDS)
    theirs = transformers.EncoderDecoderModel(theirs_config)
    outcome = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not outcome.unexpected_keys
    assert all(key.startswith("encoder.pooler.") for key in outcome.missing_keys)
    theirs.generation_config.update(**IDS)
    return ours.eval(), theirs.eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    input_ids = torch.randint(3, 50, (3, 9))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 6:] = 0
    labels = torch.randint(3, 50, (3, 6))
    labels[2, 4:] = -100
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_logits_loss_and_every_gradient_equal_upstream(pair, batch):
    ours, theirs = pair
    a, b = ours(**batch), theirs(**batch)
    torch.testing.assert_close(a.logits, b.logits)
    torch.testing.assert_close(a.loss, b.loss)
    a.loss.backward()
    b.loss.backward()
    upstream = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, upstream[name].grad, msg=name)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 4, "no_repeat_ngram_size": 2, "length_penalty": 2.0}, {"do_sample": True}]
)
def test_generated_ids_equal_upstream(pair, batch, options):
    ours, theirs = pair
    source = {key: batch[key] for key in ("input_ids", "attention_mask")}
    generated = []
    for model in (ours, theirs):
        torch.manual_seed(5)
        generated.append(model.generate(**source, max_new_tokens=8, **options))
    assert torch.equal(*generated)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_either_library_loads_the_others_checkpoints(pair, batch, tmp_path):
    ours, theirs = pair
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    reopened = [
        transformers.EncoderDecoderModel.from_pretrained(tmp_path / "ours").eval(),
        EncoderDecoderModel.from_pretrained(tmp_path / "theirs").eval(),
        EncoderDecoderModel.from_pretrained(tmp_path / "ours").eval(),
    ]
    for model in reopened:
        torch.testing.assert_close(model(**batch).logits, ours(**batch).logits)


def test_training_loss_equals_forward_and_its_gradients(pair, batch):
    ours, _ = pair
    loss, nll, count = found = ours.training_loss(**batch)
    expected = ours(**batch).loss
    torch.testing.assert_close(found.mean, expected)
    assert count == 16
    torch.testing.assert_close(loss / count, expected)
    torch.testing.assert_close(nll / count, expected.detach())
    gradients = torch.autograd.grad(loss / count, list(ours.parameters()))
    for got, wanted in zip(gradients, torch.autograd.grad(expected, list(ours.parameters())), strict=True):
        torch.testing.assert_close(got, wanted)


def test_label_smoothing_equals_torch(pair, batch):
    ours, _ = pair
    loss, _, count = ours.training_loss(**batch, label_smoothing=0.1)
    logits = ours(**batch).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(loss / count, wanted)


def test_logits_depend_on_source_and_past_but_not_on_padding_and_future(pair, batch):
    ours, _ = pair
    base = ours(**batch).logits
    other = dict(batch, input_ids=batch["input_ids"].roll(1, 0))
    assert (ours(**other).logits - base).abs().max() > 1e-4
    padded = batch["input_ids"].clone()
    padded[1, 6:] = 7
    torch.testing.assert_close(ours(**dict(batch, input_ids=padded)).logits, base)
    later = batch["labels"].clone()
    later[:, 3] = 5
    torch.testing.assert_close(ours(**dict(batch, labels=later)).logits[:, :4], base[:, :4])


def test_left_padding_changes_nothing(pair, batch):
    ours, _ = pair
    base = ours(**batch).logits
    pads = torch.zeros(3, 4, dtype=torch.long)
    left = {
        "input_ids": torch.cat([pads, batch["input_ids"]], 1),
        "attention_mask": torch.cat([pads, batch["attention_mask"]], 1),
    }
    torch.testing.assert_close(ours(**left, labels=batch["labels"]).logits, base, atol=1e-5, rtol=1e-4)
    generated = ours.generate(**left, max_new_tokens=6, num_beams=2)
    assert torch.equal(
        generated,
        ours.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=6, num_beams=2),
    )


def test_shared_weights_survive_save_and_load(batch, tmp_path):
    config = EncoderDecoderConfig(
        encoder=BertConfig(**BERT), decoder=BertConfig(**BERT), tie_encoder_decoder=True, **IDS
    )
    shared = EncoderDecoderModel(config).eval()
    separate = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**BERT), decoder=BertConfig(**BERT), **IDS))
    encoder_size = sum(p.numel() for p in separate.encoder.parameters())
    size = sum(p.numel() for p in shared.parameters())
    assert size == sum(p.numel() for p in separate.parameters()) - encoder_size
    shared.save_pretrained(tmp_path)
    reopened = EncoderDecoderModel.from_pretrained(tmp_path).eval()
    assert sum(p.numel() for p in reopened.parameters()) == size
    assert torch.equal(reopened(**batch).logits, shared(**batch).logits)


def test_num_items_in_batch_divides_the_sum(pair, batch):
    ours, _ = pair
    torch.testing.assert_close(ours(**batch, num_items_in_batch=32).loss * 2, ours(**batch).loss)


def test_one_config_for_both_submodels_still_makes_a_decoder():
    config = BertConfig(**BERT)
    joint = EncoderDecoderConfig(encoder=config, decoder=config)
    assert joint.decoder.is_decoder
    assert joint.decoder.add_cross_attention
    assert not joint.encoder.is_decoder
    assert not config.is_decoder


def test_decoder_object_built_without_cross_attention_is_refused():
    plain = transformers.BertLMHeadModel(BertConfig(**BERT, is_decoder=True))
    with pytest.raises(ValueError, match="built without cross-attention"):
        EncoderDecoderModel(encoder=transformers.BertModel(BertConfig(**BERT)), decoder=plain)


def test_encoder_object_built_as_a_decoder_is_refused():
    causal = transformers.BertModel(BertConfig(**BERT, is_decoder=True))
    decoder = transformers.GPT2LMHeadModel(GPT2Config(**GPT2, add_cross_attention=True))
    joint = EncoderDecoderConfig(encoder=BertConfig(**BERT), decoder=decoder.config)
    for config in (None, joint):
        with pytest.raises(ValueError, match="was built with is_decoder=True"):
            EncoderDecoderModel(config, encoder=causal, decoder=decoder)
    assert causal.config.is_decoder  # a refused object is not changed


def test_encoder_object_of_a_causal_type_is_accepted(batch, tmp_path):
    encoder = transformers.GPT2Model(GPT2Config(**GPT2 | {"vocab_size": 50}))
    decoder = transformers.BertLMHeadModel(BertConfig(**BERT, is_decoder=True, add_cross_attention=True))
    ours = EncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
    ours.config.decoder_start_token_id, ours.config.pad_token_id = 1, 0
    ours.save_pretrained(tmp_path)
    again = EncoderDecoderModel.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**batch).loss, ours(**batch).loss)
    EncoderDecoderModel(encoder=again.encoder, decoder=again.decoder)


def test_start_id_set_later_is_used_in_generation_and_saved(pair, batch, tmp_path):
    ours, _ = pair
    ours.config.decoder_start_token_id = 7
    source = {key: batch[key] for key in ("input_ids", "attention_mask")}
    assert (ours.generate(**source, max_new_tokens=2)[:, 0] == 7).all()
    ours.save_pretrained(tmp_path)
    reopened = EncoderDecoderModel.from_pretrained(tmp_path)
    assert (reopened.generate(**source, max_new_tokens=2)[:, 0] == 7).all()


def test_start_pad_and_end_token_may_be_equal(batch):
    """With BERT and GPT-2, start tokens, and end tokens inside the target, are visible as in generation."""
    torch.manual_seed(0)
    ids = dict.fromkeys(IDS, 2)
    ours = EncoderDecoderModel(
        EncoderDecoderConfig(encoder=BertConfig(**BERT), decoder=GPT2Config(**GPT2), **ids)
    ).eval()
    labels = torch.tensor([[5, 2, 6, 7, 2]])
    source = {"input_ids": batch["input_ids"][:1], "attention_mask": batch["attention_mask"][:1]}
    trained = ours(**source, labels=labels).logits
    stepwise = ours(**source, decoder_input_ids=torch.tensor([[2, 5, 2, 6, 7]])).logits
    torch.testing.assert_close(trained, stepwise)


def test_missing_source_mask_is_inferred(pair, batch):
    ours, _ = pair
    ids = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, ours.config.encoder.pad_token_id)
    got = ours(input_ids=ids, labels=batch["labels"]).logits
    torch.testing.assert_close(got, ours(**dict(batch, input_ids=ids)).logits)


def test_every_parameter_gets_a_gradient(pair, batch):
    ours, _ = pair
    ours(**batch).loss.backward()
    assert [name for name, p in ours.named_parameters() if p.grad is None] == []


def test_submodels_of_two_dtypes_use_the_wider_one(batch):
    encoder = transformers.BertModel(BertConfig(**BERT)).bfloat16()
    decoder = transformers.GPT2LMHeadModel(GPT2Config(**GPT2, add_cross_attention=True, is_decoder=True))
    ours = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    ours.config.decoder_start_token_id, ours.config.pad_token_id = 1, 0
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    ours(**batch).loss.backward()
