"""The decoder's start, end and pad ids are found in its checkpoint, so that a new pair trains and generates at once."""

import pytest
import torch
import transformers
from tiny import small_config, small_decoder_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizer, GPT2Tokenizer

from warmstart import EncoderDecoderModel
from warmstart.model.special_ids import known_special_ids

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def bert(tmp_path):
    folder = tmp_path / "bert"
    transformers.BertModel(small_config("bert", pad_token_id=0)).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(tmp_path):
    """A decoder whose config names other ids than its tokenizer."""
    folder = tmp_path / "gpt2"
    config = small_decoder_config("gpt2", bos_token_id=40, eos_token_id=41, pad_token_id=None)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    GPT2Tokenizer(vocab={"<|endoftext|>": 0, "a": 1, "b": 2}, merges=[]).save_pretrained(folder)
    return folder


def ids_of(model):
    config = model.config
    return config.decoder_start_token_id, config.eos_token_id, config.pad_token_id


def test_ids_come_from_the_tokenizer_of_the_decoder(bert, gpt2):
    assert ids_of(EncoderDecoderModel.from_encoder_decoder_pretrained(str(bert), str(gpt2))) == (0, 0, 0)
    assert ids_of(EncoderDecoderModel.from_encoder_decoder_pretrained(str(gpt2), str(bert))) == (2, 3, 0)


def test_arguments_take_precedence(bert, gpt2):
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(
        str(bert), str(gpt2), pad_token_id=2, decoder_start_token_id=1
    )
    assert ids_of(model) == (1, 0, 2)


def test_a_new_pair_trains_and_generates_at_once(bert, gpt2):
    for encoder, decoder in ((bert, gpt2), (gpt2, bert)):
        model = EncoderDecoderModel.from_encoder_decoder_pretrained(str(encoder), str(decoder)).train()
        source = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
        model(**source, labels=torch.tensor([[5, 6, 0]])).loss.backward()
        assert model.eval().generate(**source, max_new_tokens=3)[0, 0] == model.config.decoder_start_token_id


def test_without_a_tokenizer_the_config_is_read(bert, gpt2):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (gpt2 / name).unlink()
    assert ids_of(EncoderDecoderModel.from_encoder_decoder_pretrained(str(bert), str(gpt2))) == (40, 41, 41)


def test_a_corrupt_tokenizer_does_not_keep_the_weights_from_loading(bert, gpt2):
    (gpt2 / "tokenizer.json").write_text("{")
    assert ids_of(EncoderDecoderModel.from_encoder_decoder_pretrained(str(bert), str(gpt2))) == (40, 41, 41)


def test_the_message_about_an_unknown_id_shows_the_call(bert, tmp_path):
    decoder = tmp_path / "no_tokenizer"
    transformers.BertLMHeadModel(small_decoder_config("bert")).save_pretrained(decoder)
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(str(bert), str(decoder)).train()
    ids = torch.tensor([[5, 6]])
    call = r"model\.config\.decoder_start_token_id = decoder_tokenizer\.bos_token_id"
    with pytest.raises(ValueError, match=call):
        model(ids, labels=ids)
    with pytest.raises(ValueError, match=call):
        model.eval().generate(ids)
    model.config.decoder_start_token_id = 2
    assert model.generate(ids, max_new_tokens=3)[0, 0] == 2


def test_ids_of_a_config(tmp_path):
    def known(kind, **ids):
        return known_special_ids(None, small_decoder_config(kind, **ids), {})

    start, end, pad = "decoder_start_token_id", "eos_token_id", "pad_token_id"
    assert known("bert") == {pad: 1}
    assert known("bert", eos_token_id=[7, 8], bos_token_id=3) == {start: 3, end: 7, pad: 1}
    assert known("gpt2", bos_token_id=None, pad_token_id=None) == {start: 2, end: 2, pad: 2}
    assert known("gpt2", bos_token_id=50256, eos_token_id=50256) == {pad: 1}  # outside of the vocabulary
    bart = transformers.BartConfig(vocab_size=60, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2)
    assert known_special_ids(None, bart, {}) == {start: 2, end: 2, pad: 1}


def test_a_tokenizer_without_words_is_not_used(tmp_path):
    empty = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    empty.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=empty, unk_token="[UNK]", eos_token="[UNK]")
    tokenizer.save_pretrained(tmp_path)
    assert known_special_ids(str(tmp_path), small_decoder_config("gpt2"), {})["eos_token_id"] == 2
