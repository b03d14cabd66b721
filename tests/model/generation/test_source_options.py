"""Options that compare source and target ids need one vocabulary; generation options in model configs are refused."""

import pytest
import torch
from tiny import OURS, SOURCE_VOCABULARY, UPSTREAM, small_config, small_decoder_config, source
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
    """Build BERT with BERT (native cross-attention) or with Llama (grafted, with open gates)."""
    torch.manual_seed(0)
    decoder = (
        small_decoder_config("bert", **values)
        if kind == "native"
        else small_config(**{"kind": "llama"} | LLAMA | values)
    )
    model = OURS.join(small_config("bert"), decoder)
    for layer in getattr(model, "cross_attention", {}).values():
        torch.nn.init.constant_(layer.gate, 0.7)
    return model


def of_one_vocabulary(kind):
    """Build the model with similar embeddings in both submodels, as in two checkpoints of one family."""
    model = pair(kind, vocab_size=SOURCE_VOCABULARY)
    own, other = (one.get_input_embeddings().weight for one in (model.encoder, model.decoder))
    other.data.copy_(own.data + 0.02 * torch.randn(own.shape, generator=torch.Generator().manual_seed(3)))
    return model


@pytest.mark.parametrize("kind", ["native", "grafted"])
@pytest.mark.parametrize("asked", READING, ids=str)
@pytest.mark.parametrize("size", [SOURCE_VOCABULARY, 60])
def test_source_options_need_one_vocabulary(kind, asked, size):
    model = pair(kind, vocab_size=size)
    name = next(iter(asked))
    for given in (asked, {"generation_config": GenerationConfig(**asked)}):
        with pytest.raises(ValueError, match=f"{name}=.*different vocabularies.*logits_processor"):
            model.generate(**source(), **BEAMS, **given)
    setattr(model.generation_config, name, asked[name])
    for given in ({}, {"generation_config": GenerationConfig()}):
        with pytest.raises(ValueError, match="different vocabularies"):
            model.generate(**source(), **BEAMS, **given)
    assert model.generate_alone(max_new_tokens=4).shape[0] == 1
    model.generate(**source(), max_new_tokens=2, encoder_no_repeat_ngram_size=0, encoder_repetition_penalty=1.0)


@pytest.mark.parametrize("asked", READING, ids=str)
@pytest.mark.parametrize("search", [BEAMS, {"max_new_tokens": 8}], ids=["beams", "greedy"])
def test_native_model_with_one_vocabulary_generates_the_ids_of_transformers(asked, search):
    ours = of_one_vocabulary("native")
    theirs = UPSTREAM.join(small_config("bert"), small_decoder_config("bert", vocab_size=SOURCE_VOCABULARY))
    theirs.load_state_dict(ours.state_dict(), strict=False)  # the poolers
    expected = theirs.generate(**source(), **search, **asked)
    assert torch.equal(ours.generate(**source(), **search, **asked), expected)
    if asked != {"encoder_no_repeat_ngram_size": 2}:  # without the option, no n-gram of these sources is generated
        assert not torch.equal(ours.generate(**source(), **search), expected)


@pytest.mark.parametrize("search", [BEAMS, {"max_new_tokens": 8}, {"num_return_sequences": 2, "num_beams": 2}], ids=str)
def test_grafted_model_compares_with_its_source_and_not_its_prompt(search):
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


def test_options_from_the_decoders_config_are_switched_off():
    torch.manual_seed(0)
    small = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "init_std": 0.3}
    decoder = AutoConfig.for_model("blenderbot", vocab_size=SOURCE_VOCABULARY, pad_token_id=1, **small)
    model = OURS.join(small_config("bert"), decoder)
    assert model.generation_config.encoder_no_repeat_ngram_size == 3
    ids = model.generate(**source(), **BEAMS)
    assert torch.equal(ids, model.generate(**source(), **BEAMS, encoder_no_repeat_ngram_size=0))
    with pytest.raises(ValueError, match="encoder_no_repeat_ngram_size=3 was requested"):
        model.generate(**source(), **BEAMS, encoder_no_repeat_ngram_size=3)


def test_one_vocabulary_is_recognized_by_its_embeddings():
    for kind in ("native", "grafted"):
        assert have_one_vocabulary(*(getattr(of_one_vocabulary(kind), role) for role in ("encoder", "decoder")))
        alike = pair(kind, vocab_size=SOURCE_VOCABULARY)
        assert not have_one_vocabulary(alike.encoder, alike.decoder)
        alike.decoder.set_input_embeddings(alike.get_input_embeddings())
        assert have_one_vocabulary(alike.encoder, alike.decoder)


@pytest.mark.parametrize("kind", ["native", "grafted"])
@pytest.mark.parametrize("where", ["config", "config.decoder"])
def test_generation_options_in_a_model_config_are_refused(kind, where):
    model = pair(kind)
    (model.config if where == "config" else model.config.decoder).num_beams = 4
    for generate in (lambda: model.generate(**source()), model.generate_alone):
        with pytest.raises(
            ValueError, match=rf"model\.{where} sets num_beams.*model\.generation_config\.num_beams = 4"
        ):
            generate()
    del (model.config if where == "config" else model.config.decoder).num_beams
    model.generate(**source(), max_new_tokens=2)
