"""CTranslate2 generates the ids that the model does, on greedy and beam search."""

import pytest
from small_pairs import BATCHES, ours, pair
from tiny import IDS, OURS, SOURCE_VOCABULARY, TARGET_VOCABULARY, small_config, small_decoder_config

from warmstart.convert import to_ctranslate2
from warmstart.errors import UserError

TOKENS = [f"s{i}" for i in range(SOURCE_VOCABULARY)], [f"t{i}" for i in range(TARGET_VOCABULARY)]


@pytest.mark.parametrize(("decoder", "seed"), [("gpt2", 3), ("bert", 14)])
def test_it_generates_the_models_ids(decoder, seed, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="the extra ctranslate2 is not installed")
    model = pair(decoder, seed)
    to_ctranslate2.write(model, *TOKENS, tmp_path)
    translator = ctranslate2.Translator(str(tmp_path), compute_type="float32", intra_threads=1)

    def found(batch, **search):
        rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
        tokens = [[TOKENS[0][i] for i, seen in zip(*row, strict=True) if seen] for row in rows]
        results = translator.translate_batch(tokens, max_decoding_length=9, return_end_token=True, **search)
        return [[int(token[1:]) for token in result.hypotheses[0]] for result in results]

    def without_padding(rows):
        return [[token for token in row if token != IDS["pad_token_id"]] for row in rows]

    written = set()
    for batch in BATCHES:
        greedy, beams = found(batch, beam_size=1), found(batch, beam_size=3, length_penalty=1.0)
        assert greedy == without_padding(ours(model, batch))
        assert beams == without_padding(ours(model, batch, num_beams=3, length_penalty=1.0))
        written |= {token for row in greedy for token in row}
    assert len(written) > 5


@pytest.mark.parametrize(
    ("encoder", "decoder", "reason"),
    [
        (small_config("distilbert"), small_decoder_config("gpt2"), "the encoder is distilbert; bert can be converted"),
        (small_config("bert"), small_decoder_config("roberta"), "the decoder is roberta; gpt2, bert can be converted"),
        (small_config("bert"), small_decoder_config("bert", hidden_act="silu"), "needs GELU"),
        (small_config("bert", hidden_act="tanh"), small_decoder_config("gpt2"), "no activation tanh"),
        (small_config("bert"), small_decoder_config("gpt2", scale_attn_by_inverse_layer_idx=True), "scale by layer"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_what_it_cannot_hold_is_refused_with_the_reason(encoder, decoder, reason, tmp_path):
    with pytest.raises(UserError, match=rf"format=ctranslate2 .*{reason}"):
        to_ctranslate2.write(OURS.join(encoder, decoder), *TOKENS, tmp_path)


def test_grafted_cross_attention_is_refused(tmp_path):
    with pytest.raises(UserError, match="grafted onto llama"):
        to_ctranslate2.write(pair("llama"), *TOKENS, tmp_path)
