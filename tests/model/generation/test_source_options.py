"""Options that read the source's ids serve one vocabulary and refuse two; options on a config are refused, not lost."""

import pytest
import torch
from tiny import OURS, SOURCE_VOCABULARY, UPSTREAM, decoder_half, half, source
from transformers import AutoConfig, GenerationConfig

from warmstart.model.generation.source_options import have_one_vocabulary

LLAMA = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "hidden_size": 32,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
    "bos_token_id": 4,
    "eos_token_id": 2,
}
READING = [
    {"encoder_no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 2},
    {"encoder_repetition_penalty": 1.5},
]
BEAMS = {"num_beams": 3, "max_new_tokens": 8}


def pair(kind, **values):
    """BERT x BERT (its own cross-attention) or BERT x Llama (grafted, its gates open)."""
    torch.manual_seed(0)
    decoder = decoder_half("bert", **values) if kind == "native" else half(**{"kind": "llama"} | LLAMA | values)
    model = OURS.join(half("bert"), decoder)
    for layer in getattr(model, "cross_attention", {}).values():
        torch.nn.init.constant_(layer.gate, 0.7)
    return model


def of_one_vocabulary(kind):
    """The same with the encoder's embeddings in the decoder, as two checkpoints of one family have them."""
    model = pair(kind, vocab_size=SOURCE_VOCABULARY)
    own, other = (one.get_input_embeddings().weight for one in (model.encoder, model.decoder))
    other.data.copy_(own.data + 0.02 * torch.randn(own.shape, generator=torch.Generator().manual_seed(3)))
    return model


@pytest.mark.parametrize("kind", ["native", "grafted"])
@pytest.mark.parametrize("asked", READING, ids=str)
@pytest.mark.parametrize("size", [SOURCE_VOCABULARY, 60])
def test_two_vocabularies_are_refused(kind, asked, size):
    model = pair(kind, vocab_size=size)
    name = next(iter(asked))
    for given in (asked, {"generation_config": GenerationConfig(**asked)}):
        with pytest.raises(ValueError, match=f"{name}=.*not those of one vocabulary.*logits_processor"):
            model.generate(**source(), **BEAMS, **given)
    setattr(model.generation_config, name, asked[name])
    for given in ({}, {"generation_config": GenerationConfig()}):
        with pytest.raises(ValueError, match="not those of one vocabulary"):
            model.generate(**source(), **BEAMS, **given)
    assert model.generate_alone(max_new_tokens=4).shape[0] == 1
    model.generate(**source(), max_new_tokens=2, encoder_no_repeat_ngram_size=0, encoder_repetition_penalty=1.0)


@pytest.mark.parametrize("asked", READING, ids=str)
@pytest.mark.parametrize("search", [BEAMS, {"max_new_tokens": 8}], ids=["beams", "greedy"])
def test_a_native_pair_of_one_vocabulary_writes_what_transformers_writes(asked, search):
    ours = of_one_vocabulary("native")
    theirs = UPSTREAM.join(half("bert"), decoder_half("bert", vocab_size=SOURCE_VOCABULARY))
    theirs.load_state_dict(ours.state_dict(), strict=False)  # the poolers
    expected = theirs.generate(**source(), **search, **asked)
    assert torch.equal(ours.generate(**source(), **search, **asked), expected)
    if asked != {"encoder_no_repeat_ngram_size": 2}:  # no n-gram of these sources comes up by itself
        assert not torch.equal(ours.generate(**source(), **search), expected)


@pytest.mark.parametrize("search", [BEAMS, {"max_new_tokens": 8}, {"num_return_sequences": 2, "num_beams": 2}], ids=str)
def test_a_grafted_pair_of_one_vocabulary_reads_its_source_and_not_its_prompt(search):
    model = of_one_vocabulary("grafted")
    search = {"max_new_tokens": 8} | search
    returned = search.get("num_return_sequences", 1)
    ids = model.generate(**source(), **search, encoder_no_repeat_ngram_size=1)
    repeated = source()["input_ids"].repeat_interleave(returned, dim=0).tolist()
    for row, of_source in zip(ids.tolist(), repeated, strict=True):
        assert not set(row[1:]) - {1} & set(of_source)
    plain = model.generate(**source(), **search)
    assert any(set(row[1:]) & set(of_source) for row, of_source in zip(plain.tolist(), repeated, strict=True))
    favoured = model.generate(**source(), **search, encoder_repetition_penalty=50.0)
    assert not torch.equal(favoured, plain)
    with pytest.raises(ValueError, match="no ids"):
        model.generate(
            inputs_embeds=model.get_input_embeddings()(source()["input_ids"]), encoder_no_repeat_ngram_size=1
        )


def test_what_the_decoder_s_config_brings_is_switched_off():
    torch.manual_seed(0)
    small = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "init_std": 0.3}
    decoder = AutoConfig.for_model("blenderbot", vocab_size=SOURCE_VOCABULARY, pad_token_id=1, **small)
    model = OURS.join(half("bert"), decoder)
    assert model.generation_config.encoder_no_repeat_ngram_size == 3
    ids = model.generate(**source(), **BEAMS)
    assert torch.equal(ids, model.generate(**source(), **BEAMS, encoder_no_repeat_ngram_size=0))
    with pytest.raises(ValueError, match="encoder_no_repeat_ngram_size=3 was requested"):
        model.generate(**source(), **BEAMS, encoder_no_repeat_ngram_size=3)


def test_one_vocabulary_is_known_by_its_embeddings():
    for kind in ("native", "grafted"):
        assert have_one_vocabulary(*(getattr(of_one_vocabulary(kind), role) for role in ("encoder", "decoder")))
        alike = pair(kind, vocab_size=SOURCE_VOCABULARY)
        assert not have_one_vocabulary(alike.encoder, alike.decoder)
        alike.decoder.set_input_embeddings(alike.get_input_embeddings())
        assert have_one_vocabulary(alike.encoder, alike.decoder)


@pytest.mark.parametrize("kind", ["native", "grafted"])
@pytest.mark.parametrize("where", ["config", "config.decoder"])
def test_search_options_on_a_config_are_refused_by_name(kind, where):
    model = pair(kind)
    (model.config if where == "config" else model.config.decoder).num_beams = 4
    for generate in (lambda: model.generate(**source()), model.generate_alone):
        with pytest.raises(
            ValueError, match=rf"model\.{where} sets num_beams.*model\.generation_config\.num_beams = 4"
        ):
            generate()
    del (model.config if where == "config" else model.config.decoder).num_beams
    model.generate(**source(), max_new_tokens=2)
