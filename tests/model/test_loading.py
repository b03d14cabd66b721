"""Two checkpoints: shared embeddings and LM heads are loaded, and the caller's config objects do not change."""

import pytest
import torch
import transformers
from tiny import IDS, OURS, small_config, upstream_fails

from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.model.decoders import decoder_class

TYPES = ["bart", "mbart", "pegasus", "blenderbot", "blenderbot-small", "plbart", "bigbird_pegasus"]
SMALL = {
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16),
    **{"d_model": 32, "vocab_size": 60, "max_position_embeddings": 64, "pad_token_id": 1},
}


@upstream_fails(AssertionError)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("head", [True, False], ids=["with its head", "without"])
def test_shared_embeddings_of_a_checkpoint_are_loaded_into_the_decoder(lib, kind, head, tmp_path):
    config = transformers.AutoConfig.for_model(kind, **SMALL)
    auto = transformers.AutoModelForSeq2SeqLM if head else transformers.AutoModel
    whole = auto.from_config(config)
    whole.save_pretrained(tmp_path / "decoder")
    transformers.BertModel(small_config("bert")).save_pretrained(tmp_path / "encoder")
    model = lib.model.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder")
    embeddings = whole.get_input_embeddings().weight
    assert torch.equal(model.decoder.get_input_embeddings().weight, embeddings)
    assert torch.equal(model.decoder.get_output_embeddings().weight, embeddings)
    if lib is OURS:
        assert not {name for name in model.new_parameter_names() if "embed_tokens" in name or "lm_head" in name}


def test_one_config_object_for_both_submodels_is_not_changed(tmp_path):
    config = small_config("bert")
    transformers.BertModel(config).save_pretrained(tmp_path)
    before = config.to_dict()
    model = OURS.model.from_encoder_decoder_pretrained(
        tmp_path, tmp_path, encoder_config=config, decoder_config=config, **IDS
    ).eval()
    assert config.to_dict() == before
    assert not {name for name in model.new_parameter_names() if name.startswith("encoder.")}
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]])
    first, other = model.encoder(input_ids=ids).last_hidden_state[:, 0]
    assert not torch.equal(first, other)  # its tokens see later ones


@pytest.mark.parametrize("kind", ["xlm", "bart"])
def test_a_config_object_is_not_changed(kind, tmp_path):
    config = tiny_config(kind)
    decoder_class(config)(config).save_pretrained(tmp_path / "decoder")
    transformers.BertModel(small_config("bert")).save_pretrained(tmp_path / "encoder")
    before = config.to_dict()
    OURS.model.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder", decoder_config=config, **IDS)
    assert config.to_dict() == before
