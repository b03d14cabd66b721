"""A weight index may not name files outside its folder."""

import json

import pytest
from transformers import BertConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.errors import UserError

TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def folder(tmp_path):
    """A sharded checkpoint of a joint model and one of its encoder."""
    configs = BertConfig(**TINY), BertConfig(**TINY, is_decoder=True, add_cross_attention=True)
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(*configs))
    model.save_pretrained(tmp_path / "pair", max_shard_size="8KB")
    model.encoder.save_pretrained(tmp_path / "encoder", max_shard_size="8KB")
    return tmp_path


def change(folder, leads_to):
    """Move the first weights file out of ``folder``, and name it in the index as ``leads_to``."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first = sorted(set(index["weight_map"].values()))[0]
    (folder / first).rename(folder.parent / first)
    named = leads_to.format(name=first, above=folder.parent)
    index["weight_map"] = {key: named if file == first else file for key, file in index["weight_map"].items()}
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("leads_to", ["../{name}", "{above}/{name}", "x/../../{name}", "..", ""])
def test_index_with_paths_outside_its_folder_is_refused(folder, leads_to):
    EncoderDecoderModel.from_pretrained(folder / "pair")
    for name in ("pair", "encoder"):
        change(folder / name, leads_to)
    with pytest.raises(UserError, match="outside its own folder"):
        EncoderDecoderModel.from_pretrained(folder / "pair")
    with pytest.raises(UserError, match="outside its own folder"):
        EncoderDecoderModel.from_encoder_decoder_pretrained(str(folder / "encoder"), str(folder / "encoder"))
