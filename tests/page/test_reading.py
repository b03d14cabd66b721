"""Where reading stopped, and the source words of each word: of decoders with their own and with grafted attention."""

import pytest
import torch
from page_texts import DOCUMENT

from warmstart.model.bridge.cross_attention import CrossAttention
from warmstart.model.no_encoder import NoEncoderConfig
from warmstart.page.reading import _keep_weights, cross_attention, reading_of, word_spans, words_read


@pytest.fixture(params=["run", "grafted"])
def model(request, menu):
    return menu.load(str(request.getfixturevalue(request.param).folder))


def test_the_weights_of_each_token_sum_to_one(model):
    source, target = torch.tensor([[2, 7, 8, 9, 3]]), torch.tensor([[0, 5, 6]])
    network = model.summarizer.model
    before = network.config.decoder._attn_implementation, network.config.encoder._attn_implementation
    weights = cross_attention(network, source, target)
    assert weights.shape == (3, 5)
    assert weights.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert (network.config.decoder._attn_implementation, network.config.encoder._attn_implementation) == before


def test_the_weights_of_a_grafted_layer_give_its_output(menu, grafted):
    network = menu.load(str(grafted.folder)).summarizer.model
    layer = next(module for module in network.modules() if isinstance(module, CrossAttention))
    seen, kept = [], []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append((args, output)))
    with torch.inference_mode():
        before = layer.gate.clone()
        layer.gate.fill_(1.0)
        cross_attention(network, torch.tensor([[2, 7, 8, 9, 3]]), torch.tensor([[0, 5, 6]]))
        handle.remove()
        ((args, output),) = seen
        _keep_weights(kept, layer, args, output)
        _, values = layer.keys_and_values(args[1])
        values = values.repeat_interleave(layer.shape.heads // layer.shape.key_heads, dim=1)
        attended = layer.o_proj((kept[0] @ values).transpose(1, 2).flatten(2)) * layer.gate.tanh()
        layer.gate.copy_(before)
    assert output.abs().max() > 0
    assert torch.allclose(attended, output, atol=1e-5)


def test_words_of_the_text_are_named_for_each_word_of_the_summary(model):
    reading = reading_of(model.tokenizers, DOCUMENT, 64)
    summary = "town 7, school"
    read = words_read(model.summarizer.model, model.tokenizers, DOCUMENT, summary, reading)
    assert len(read) == len(word_spans(summary)) == 4
    for pairs in read:
        assert pairs
        assert [share for _, share in pairs] == sorted((share for _, share in pairs), reverse=True)
        assert sum(share for _, share in pairs) <= 1 + 1e-5
        assert all(0 <= i < len(word_spans(DOCUMENT)) for i, _ in pairs)
    assert words_read(model.summarizer.model, model.tokenizers, DOCUMENT, "", reading) == []


def test_reading_stops_after_the_last_token_that_fits(model):
    whole = reading_of(model.tokenizers, DOCUMENT, 500)
    assert (whole.is_cut, whole.end) == (False, None)
    exact = reading_of(model.tokenizers, DOCUMENT, whole.tokens)
    assert not exact.is_cut
    cut = reading_of(model.tokenizers, DOCUMENT, 12)
    assert cut.is_cut
    assert cut.tokens == 12
    assert 0 < cut.end < len(DOCUMENT)
    assert reading_of(model.tokenizers, DOCUMENT[: cut.end], 500).tokens == 12


def test_a_tokenizer_without_positions_gives_no_words(model):
    class Slow:
        is_fast = False

    class Pair:
        source = Slow()
        encode_sources = model.tokenizers.encode_sources

    reading = reading_of(Pair(), DOCUMENT, 12)
    assert (reading.is_cut, reading.offsets, reading.end) == (True, None, None)
    assert words_read(model.summarizer.model, model.tokenizers, DOCUMENT, "town", reading) is None


def test_words_are_split_at_signs_and_between_chinese_characters():
    assert [text[a:b] for text in ["It's two-fold: 今天 3."] for a, b in word_spans(text)] == [
        *("It's", "two-fold", ":", "今", "天", "3", ".")
    ]


def test_a_model_without_encoder_has_no_cross_attention(model):
    class Decoder:
        class config:
            encoder = NoEncoderConfig(vocab_size=40, hidden_size=8)

    reading = reading_of(model.tokenizers, DOCUMENT, 64)
    assert words_read(Decoder, model.tokenizers, DOCUMENT, "town", reading) is None
