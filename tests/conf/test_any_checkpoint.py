"""``encoder=hf`` and ``decoder=hf`` take any checkpoint by its path, without a config file of its own."""

import json

import pytest
import torch
import transformers

from warmstart.errors import UserError
from warmstart.model.build import build_model
from warmstart.model.parameters import parameter_counts
from warmstart.model.submodel_config import submodel_config
from warmstart.runs.explain import explain
from warmstart.tasks.check import faults, pair_without_values

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture
def folders(tmp_path):
    """A BERT and a GPT-2 of sizes that are not their types' defaults, saved by transformers."""
    bert = transformers.BertConfig(
        vocab_size=90, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40
    )
    gpt2 = transformers.GPT2Config(vocab_size=70, n_embd=24, n_layer=3, n_head=2, bos_token_id=1, eos_token_id=2)
    transformers.BertModel(bert).save_pretrained(tmp_path / "my-bert")
    transformers.GPT2LMHeadModel(gpt2).save_pretrained(tmp_path / "my-gpt2")
    return tmp_path


def pair_of(folders):
    paths = {"encoder": folders / "my-bert", "decoder": folders / "my-gpt2"}
    return [word for role, path in paths.items() for word in (f"{role}=hf", f"{role}.path={path}")]


def built(settings):
    sizes = {"encoder_vocab_size": 90, "decoder_vocab_size": 70}
    return build_model(settings.encoder, settings.decoder, settings.bridge, special_ids=IDS, **sizes)


def test_the_last_part_of_the_path_is_the_name(settings_of):
    settings = settings_of("encoder=hf", "encoder.path=google/flan-t5-small", "decoder=hf", "decoder.path=./here/")
    assert (settings.encoder.name, settings.encoder.path) == ("flan-t5-small", "google/flan-t5-small")
    assert settings.decoder.name == "here"
    assert settings_of("encoder=hf", "encoder.path=a/b", "encoder.name=mine").encoder.name == "mine"


def test_a_missing_path_is_requested(settings_of):
    with pytest.raises(Exception, match="needs a checkpoint") as refused:
        settings_of("decoder=hf")
    assert explain(refused.value).startswith("decoder=hf needs a checkpoint. Set decoder.path to a hub id")


def test_check_counts_the_parameters_of_the_checkpoints(folders, settings_of):
    settings = settings_of(*pair_of(folders), "data.max_source_length=128")
    assert faults(settings) == []
    predicted, found = parameter_counts(pair_without_values(settings)), parameter_counts(built(settings))
    assert predicted["total"] == found["total"]
    assert found["total"] == sum(one.numel() for one in built(settings).parameters())


def test_the_weights_are_those_of_the_checkpoint(folders, settings_of):
    model = built(settings_of(*pair_of(folders)))
    stored = transformers.BertModel.from_pretrained(folders / "my-bert").state_dict()
    assert torch.equal(
        model.encoder.state_dict()["embeddings.word_embeddings.weight"], stored["embeddings.word_embeddings.weight"]
    )


def test_random_weights_have_the_architecture_of_the_checkpoint(folders, settings_of):
    settings = settings_of(*pair_of(folders), "encoder.weights=random", "+decoder.architecture.n_layer=1")
    pretrained, random = (
        submodel_config(one, "encoder", 90) for one in (settings_of(*pair_of(folders)).encoder, settings.encoder)
    )
    assert random.to_dict() | {"dtype": None} == pretrained.to_dict() | {"dtype": None}
    assert built(settings).encoder.config.num_hidden_layers == 3
    settings = settings_of(*pair_of(folders), "decoder.weights=random", "+decoder.architecture.num_hidden_layers=1")
    assert built(settings).decoder.config.n_layer == 1


def test_debug_tiny_makes_a_tiny_model_of_the_same_type(folders, settings_of):
    settings = settings_of("debug=tiny", *pair_of(folders))
    assert faults(settings) == []
    config = submodel_config(settings.encoder, "encoder", 90)
    assert (config.model_type, config.num_hidden_layers) == ("bert", 2)


def test_a_folder_without_a_config_is_reported(folders, settings_of):
    (folders / "my-bert" / "config.json").unlink()
    [found, *_] = faults(settings_of(*pair_of(folders), "data.max_source_length=128"))
    assert found.startswith("encoder=my-bert: no model config can be read from ")


@pytest.mark.parametrize("path", ["./absent", "/absent/folder"])
def test_an_absent_folder_is_not_taken_for_a_hub_id(path, settings_of):
    [found] = faults(settings_of("encoder=hf", f"encoder.path={path}", "data.max_source_length=128"))
    assert found == f"encoder={path.split('/')[-1]}: the folder {path} does not exist. Correct encoder.path."


def test_a_file_is_not_taken_for_a_hub_id(tmp_path, settings_of):
    (tmp_path / "good.csv").write_text("document,summary")
    [found] = faults(settings_of("encoder=hf", f"encoder.path={tmp_path}/good.csv", "data.max_source_length=128"))
    assert "good.csv is a file. Set encoder.path to a hub id, to a folder with a checkpoint, or to a .gguf" in found


def test_a_type_that_cannot_be_an_encoder_is_refused(folders, settings_of):
    file = folders / "my-bert" / "config.json"
    file.write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(UserError, match="encoder=my-bert: 'vit' cannot be an encoder"):
        submodel_config(settings_of(*pair_of(folders)).encoder, "encoder")


def test_a_hub_id_without_the_hub_is_reported_with_the_alternatives(settings_of):
    [found] = faults(settings_of("encoder=hf", "encoder.path=nobody/absent", "data.max_source_length=128"))
    assert "cannot be reached, and the local cache does not hold encoder=absent (nobody/absent)" in found
