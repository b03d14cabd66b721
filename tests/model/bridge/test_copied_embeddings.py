"""A fresh decoder starts with a copy of the encoder's token embeddings, and its tied LM head writes with them."""

import pytest
import torch
from transformers import BertConfig, BertModel

from warmstart.errors import UserError
from warmstart.model.build import build_model

IDS = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def built(settings_of, tmp_path, *overrides):
    torch.manual_seed(1)
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path / "encoder")
    small = "{vocab_size: 40, d_model: 16, decoder_layers: 2, decoder_attention_heads: 2, decoder_ffn_dim: 32}"
    settings = settings_of(
        f"encoder.path={tmp_path / 'encoder'}",
        *("decoder=fresh_transformer", "bridge=copied_embeddings", f"decoder.architecture={small}", *overrides),
    )
    sizes = {"encoder_vocab_size": 40, "decoder_vocab_size": 40, "sentence_ids": {"sentence_start_id": 2}}
    return build_model(settings.encoder, settings.decoder, settings.bridge, special_ids=IDS, **sizes)


def test_embeddings_are_copied_tied_to_the_head_and_separate(settings_of, tmp_path):
    model = built(settings_of, tmp_path)
    own, copied = model.encoder.get_input_embeddings().weight, model.decoder.get_input_embeddings().weight
    assert torch.equal(own, copied)
    assert own is not copied
    assert model.get_output_embeddings().weight is copied
    new = model.new_parameter_names()
    assert not any("embed_tokens" in name or "lm_head" in name for name in new)
    assert any("decoder_attn" in name or "encoder_attn" in name for name in new)
    assert any("self_attn" in name for name in new)


def test_longer_positions_and_segments_reach_the_encoder(settings_of, tmp_path):
    model = built(settings_of, tmp_path, "encoder.positions=600").eval()
    assert model.config.encoder.max_position_embeddings == 600
    ids = torch.tensor([[2, 5, 6, 3, 2, 7, 3]])
    own = model._encode(ids, torch.ones_like(ids))[0]
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    by_hand = model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=segments)[0]
    assert torch.equal(own, by_hand)
    assert not torch.equal(own, model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))[0])
    loaded = type(model)(type(model.config)(**model.config.to_dict()))
    assert loaded.config.encoder.sentence_start_id == 2


def test_embeddings_of_another_size_are_refused(settings_of, tmp_path):
    with pytest.raises(UserError, match=r"as in the decoder, but the encoder has \[40, 16\]"):
        built(settings_of, tmp_path, "decoder.architecture.d_model=32")
