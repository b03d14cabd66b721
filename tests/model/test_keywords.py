"""Unknown keywords are refused everywhere; transformers' class ignores most of them."""

import inspect

import pytest
import torch
import transformers
from tiny import IDS, small_config, small_decoder_config, source, target
from transformers import BertModel, GPT2LMHeadModel

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.model.cache_names import CACHE_NAMES


@pytest.fixture(params=["bert", "gpt2", "llama"])
def model(request):
    torch.manual_seed(0)
    decoder = small_decoder_config(request.param, **({"num_key_value_heads": 2} if request.param == "llama" else {}))
    return EncoderDecoderModel(
        EncoderDecoderConfig.from_encoder_decoder_configs(small_config("bert"), decoder, **IDS)
    ).eval()


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("cach", "cache"), ("lable", "labels"), ("attention_maks", "attention_mask"), ("past", None)],  # codespell:ignore
)
def test_forward_refuses_an_unknown_keyword_and_suggests_one(model, wrong, nearest):
    hint = f"Did you mean '{nearest}'" if nearest else "not a keyword of EncoderDecoderModel or its encoder BertModel"
    with pytest.raises(TypeError, match=hint):
        model(**source(), decoder_input_ids=target(), **{wrong: 1})


def test_forward_refuses_an_unknown_keyword_of_the_decoder(model):
    with pytest.raises(TypeError, match=r"'decoder_position' is not a keyword .*Did you mean 'decoder_position_ids'"):
        model(**source(), decoder_input_ids=target(), decoder_position=1)


def test_forward_accepts_keywords_of_the_submodels(model):
    ids = target().clamp(min=5)
    plain = model(**source(), decoder_input_ids=ids).logits
    positions = {"position_ids": torch.arange(9)[None], "decoder_position_ids": torch.arange(6)[None]}
    tokenizer = {"token_type_ids": torch.zeros(3, 9, dtype=torch.long)}
    torch.testing.assert_close(model(**source(), decoder_input_ids=ids, **positions, **tokenizer).logits, plain)
    assert model(**source(), decoder_input_ids=ids, decoder_logits_to_keep=1).logits.shape[1] == 1


@pytest.mark.parametrize("wrong", ["foo", "decoder_foo", "num_beam", "max_new_token"])
def test_generate_refuses_an_unknown_keyword(model, wrong):
    with pytest.raises(ValueError, match=wrong):
        model.generate(**source(), **{"max_new_tokens": 3, wrong: 2})


def test_training_loss_refuses_an_unknown_keyword(model):
    with pytest.raises(TypeError, match="label_smooth"):
        model.training_loss(**source(), labels=target(), label_smooth=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tie_embedings": True}, "Did you mean 'tie_embeddings'"),
        ({"device_map": "cpu"}, "Use encoder_device_map or decoder_device_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"encoder_foo": 1}, "foo"),
        ({"decoder_foo": 1}, "foo"),
    ],
)
def test_warm_starting_refuses_an_unknown_keyword(tmp_path, wrong, message):
    BertModel(small_config("bert")).save_pretrained(tmp_path / "encoder")
    GPT2LMHeadModel(small_config("gpt2")).save_pretrained(tmp_path / "decoder")
    with pytest.raises(TypeError, match=message):
        EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder", **wrong)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_cache_is_accepted_under_both_names(model, name):
    ids = target().clamp(min=5)
    whole = model(**source(), decoder_input_ids=ids).logits[:, -1]
    begun = model(**source(), decoder_input_ids=ids[:, :-1], use_cache=True)
    cache = {name: begun[CACHE_NAMES[0]]}
    mask = torch.ones_like(ids)
    step = model(**source(), decoder_input_ids=ids[:, -1:], decoder_attention_mask=mask, **cache)
    torch.testing.assert_close(step.logits[:, -1], whole, rtol=1e-4, atol=1e-4)


def test_two_different_caches_are_refused(model):
    caches = {"cache": transformers.DynamicCache(), "past_key_values": transformers.DynamicCache()}
    with pytest.raises(ValueError, match="two names of one argument"):
        model(**source(), decoder_input_ids=target(), **caches)


@pytest.mark.parametrize("search", [{}, {"num_beams": 3}])
def test_cache_argument_of_generate_does_not_change_ids(model, search):
    """transformers 5.24 renamed the argument; with the old name, ids would be wrong without an error."""
    plain = model.generate(**source(), max_new_tokens=6, use_cache=False, **search)
    torch.testing.assert_close(model.generate(**source(), max_new_tokens=6, **search), plain)


def test_cache_name_of_the_installed_transformers_is_known():
    """A release that renames the cache again must fail here, because generated ids would be wrong without an error."""
    taken = inspect.signature(transformers.EncoderDecoderModel.forward).parameters
    assert CACHE_NAMES[0] in taken, f"transformers {transformers.__version__} renamed the cache: {list(taken)}"
