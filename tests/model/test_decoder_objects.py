"""Decoder objects of the caller: those whose tokens see later ones are refused."""

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config

from warmstart import DecoderOnlyModel, EncoderDecoderConfig, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.model.decoder_only import DecoderOnlyConfig
from warmstart.model.no_encoder import NoEncoder

BERT = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GPT2 = {"vocab_size": 60, "n_embd": 24, "n_layer": 2, "n_head": 4}
IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "roformer", "xlm"])
@pytest.mark.parametrize("by_class", [False, True], ids=["from_encoder_decoder_pretrained", "constructor"])
def test_decoder_object_that_sees_later_tokens_is_refused(kind, by_class):
    decoder = transformers.AutoModelForCausalLM.from_config(tiny_config(kind)).train()
    decoder.base_model.get_input_embeddings().eval()
    encoder = transformers.BertModel(BertConfig(**BERT))
    modes, state = [module.training for module in decoder.modules()], torch.get_rng_state()
    config = EncoderDecoderConfig(encoder=encoder.config, decoder=decoder.config, graft={})
    given = (config, encoder, decoder) if by_class else ()
    objects = {} if by_class else {"encoder_model": encoder, "decoder_model": decoder, "graft": {}}
    join = EncoderDecoderModel if by_class else EncoderDecoderModel.from_encoder_decoder_pretrained
    with pytest.raises(ValueError, match="attend to later ones"):
        join(*given, **objects)
    assert [module.training for module in decoder.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_decoder_object_whose_config_was_changed_afterwards_is_refused():
    decoder = transformers.BertLMHeadModel(BertConfig(**BERT))
    decoder.config.is_decoder = True
    encoder = transformers.BertModel(BertConfig(**BERT))
    config = EncoderDecoderConfig(encoder=encoder.config, decoder=decoder.config, graft={})
    with pytest.raises(ValueError, match="attend to later ones"):
        EncoderDecoderModel(config, encoder=encoder, decoder=decoder)


def test_decoder_object_without_an_encoder_that_sees_later_tokens_is_refused():
    decoder = transformers.BertLMHeadModel(BertConfig(**BERT))
    config = DecoderOnlyConfig(decoder=decoder.config, **IDS)
    with pytest.raises(ValueError, match="attend to later ones"):
        DecoderOnlyModel(config, encoder=NoEncoder(config.encoder), decoder=decoder)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt", "mamba", "recurrent_gemma", "reformer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_decoder_object_is_accepted(kind, dtype):
    decoder = transformers.AutoModelForCausalLM.from_config(tiny_config(kind), dtype=dtype)
    encoder = transformers.BertModel(BertConfig(**BERT))
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(encoder_model=encoder, decoder_model=decoder, graft={})
    assert model.decoder is decoder


def test_decoder_object_on_the_meta_device_is_not_run():
    with torch.device("meta"):
        decoder = transformers.BertLMHeadModel(BertConfig(**BERT))
        encoder = transformers.BertModel(BertConfig(**BERT))
        config = EncoderDecoderConfig(encoder=encoder.config, decoder=decoder.config, graft={})
        assert EncoderDecoderModel(config, encoder=encoder, decoder=decoder).device.type == "meta"


def test_decoder_that_is_loaded_from_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    transformers.BertModel(BertConfig(**BERT)).save_pretrained(tmp_path / "encoder")
    transformers.GPT2LMHeadModel(GPT2Config(**GPT2)).save_pretrained(tmp_path / "decoder")
    monkeypatch.setattr(transformers.GPT2LMHeadModel, "forward", lambda *args, **kwargs: pytest.fail("it ran"))
    EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder")
