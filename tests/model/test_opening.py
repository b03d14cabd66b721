"""``opens_in_transformers`` agrees with what transformers' class does with the checkpoint."""

import pytest
import torch
import transformers

from warmstart.config.model import (
    Attention,
    BridgeSettings,
    CrossAttentionInit,
    Scale,
    Share,
    SubmodelSettings,
    Weights,
)
from warmstart.model.build import build_model
from warmstart.model.opening import opens_in_transformers

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def random_submodel(kind, attention=Attention.own):
    return SubmodelSettings(kind, "nowhere", kind, weights=Weights.random, scale=Scale.tiny, attention=attention)


def pair(encoder, decoder, **bridge):
    sizes = {"encoder_vocab_size": 60, "decoder_vocab_size": 60}
    return build_model(encoder, random_submodel(decoder), BridgeSettings(**bridge), special_ids=IDS, **sizes).eval()


@pytest.mark.parametrize(
    ("encoder", "decoder", "bridge", "opens"),
    [
        (random_submodel("bert"), "gpt2", {}, True),
        (random_submodel("bert"), "bert", {"share": Share.weights}, True),
        (random_submodel("distilbert"), "bart", {}, True),
        (random_submodel("gpt2", Attention.bidirectional), "gpt2", {}, True),
        (random_submodel("llama", Attention.bidirectional), "roberta", {}, True),
        (random_submodel("bert"), "llama", {}, False),  # grafted
        (
            random_submodel("bert"),
            "gpt_bigcode",
            {"init": CrossAttentionInit.random},
            False,
        ),  # grafted, though transformers' class finds cross-attention in it
        (random_submodel("t5"), "gpt2", {}, False),
        (random_submodel("bart"), "gpt2", {}, False),
        (random_submodel("longformer"), "gpt2", {}, False),  # it opens, but without global attention
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_answer_agrees_with_transformers_class(encoder, decoder, bridge, opens, tmp_path):
    model = pair(encoder, decoder, **bridge)
    assert opens_in_transformers(model) == opens
    model.save_pretrained(tmp_path)
    ids = torch.randint(5, 60, (2, 9))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids[:, :4]}
    try:
        theirs, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
        missing = {name for name in info["missing_keys"] if not name.startswith("encoder.pooler.")}
        same = not missing and torch.allclose(theirs.eval()(**batch).logits, model(**batch).logits, atol=1e-5)
    except (ValueError, RuntimeError, TypeError, AttributeError):
        same = False
    assert same == opens
