"""The recipes of Rothe et al. 2020: what they set for a data set, their parameter counts, and that each one trains.

Counts are those of models without values (the meta device), built from conf/ without the hub.
"""

import json
from pathlib import Path

import pytest

from warmstart.cli.main import config_dir
from warmstart.config.paper import described, paper_of
from warmstart.model.decoders import cross_attention_modules
from warmstart.model.parameters import parameter_counts
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit
from warmstart.tasks.check import faults, pair_without_values

FOLDER = Path(config_dir()) / "experiment" / "rothe"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DATA = sorted(path.stem for path in (FOLDER / "data").glob("*.yaml"))
NAMES = """
    bert2bert bert2gpt bert2rnd bertshare bertshare_large gpt rnd2bert rnd2gpt rnd2rnd roberta2gpt robertashare
    robertashare_large
"""

# The table of the paper, in millions.
PAPER = {"bert2bert": 221, "bertshare": 136, "robertashare": 152, "bert2gpt": 260, "roberta2gpt": 276}
CROSS_ATTENTION = 26

# What a data set sets: source and target tokens, examples of a step, steps, epochs, beams.
SET = {
    "cnn_dailymail": (512, 128, 128, 300_000, None, 4),
    "xsum": (512, 64, 128, 200_000, None, 4),
    "gigaword": (128, 32, 128, 500_000, None, 4),
    "wmt14_en_de": (128, 128, 256, -1, 30, 4),
    "wmt14_de_en": (128, 128, 256, -1, 30, 4),
    "discofuse": (128, 128, 256, 300_000, None, 4),
    "wikisplit": (128, 128, 256, 300_000, None, 4),
}


def test_there_is_a_recipe_for_each_row_and_settings_for_each_data_set():
    assert NAMES.split() == RECIPES
    assert sorted(SET) == DATA


@pytest.mark.parametrize("data", DATA)
def test_a_data_set_sets_lengths_batches_steps_and_search_of_any_recipe(data, settings_of):
    settings = settings_of("experiment=rothe/bert2bert", f"data={data}")
    source, target, batch, steps, epochs, beams = SET[data]
    assert (settings.data.max_source_length, settings.data.max_target_length) == (source, target)
    assert settings.data.batch.max_tokens is None
    assert settings.data.batch.size * settings.trainer.accumulate == batch
    assert (settings.trainer.max_steps, settings.generation.num_beams) == (steps, beams)
    assert settings.generation.max_new_tokens <= target
    if epochs is None:  # the steps end the fit, not the epochs
        of_epoch = settings.data.size.examples / batch
        assert of_epoch * (settings.trainer.max_epochs - 1) < steps <= of_epoch * settings.trainer.max_epochs
    else:
        assert settings.trainer.max_epochs == epochs
    assert settings.name is None
    assert settings.data.name == data


def test_the_command_line_and_debug_win_over_the_recipe(settings_of):
    settings = settings_of("experiment=rothe/bert2bert", "data=xsum", "data.max_source_length=99", "optim=adamw")
    assert (settings.data.max_source_length, settings.trainer.max_steps) == (99, 200_000)
    assert settings.optim.decay.value == "linear"
    assert settings_of("experiment=rothe/bert2bert", "debug=tiny").trainer.max_steps == 3
    other = settings_of("experiment=rothe/bert2bert", "data=samsum")  # not in the paper: the defaults
    assert (other.trainer.max_steps, other.data.max_source_length) == (-1, 512)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_valid_without_a_download(recipe, settings_of):
    assert faults(settings_of(f"experiment=rothe/{recipe}")) == []
    assert faults(settings_of(f"experiment=rothe/{recipe}", "data=wmt14_en_de")) == []


@pytest.mark.parametrize("recipe", PAPER)
def test_parameters_are_within_one_percent_of_the_paper(recipe, settings_of):
    counts = parameter_counts(pair_without_values(settings_of(f"experiment=rothe/{recipe}")))
    assert counts["total"] / 1e6 == pytest.approx(PAPER[recipe], rel=0.01)


def test_cross_attention_has_more_parameters_than_the_paper_states(settings_of):
    """28.4M, where the paper has 26M (8 % fewer).

    12 layers with queries, keys, values and outputs of 768 x 768 weights and 768 biases are 28.35M, and the norms add
    0.02M; three matrices would be 21.3M. No such layer has 26M, although the totals agree.
    """
    model = pair_without_values(settings_of("experiment=rothe/bertshare"))
    modules = cross_attention_modules(model.decoder).values()
    found = sum(weight.numel() for module in modules for weight in module.parameters())
    assert found == 12 * (4 * (768 * 768 + 768) + 2 * 768) == 28_366_848
    assert found / 1e6 != pytest.approx(CROSS_ATTENTION, rel=0.08)


def test_the_uncased_checkpoint_and_separate_embeddings_miss_the_totals(settings_of):
    def total(*words):
        return parameter_counts(pair_without_values(settings_of(*words)))["total"] / 1e6

    of_pair = "experiment=rothe/bert2bert"
    assert total(of_pair, "bridge.share=none") == pytest.approx(221 + 23.4, abs=0.1)
    assert total(of_pair, "encoder=bert", "decoder=bert") == pytest.approx(221 * 1.0105, abs=0.1)
    assert total("experiment=rothe/bertshare", "encoder=bert", "decoder=bert") == pytest.approx(136 * 1.014, abs=0.1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_the_scores_of_its_row(recipe, settings_of):
    settings = settings_of(f"experiment=rothe/{recipe}")
    paper = paper_of(settings.evaluation.paper, "cnn_dailymail")
    assert paper["source"].startswith("Rothe et al. 2020, ")
    assert set(paper["scores"]) == {"rouge1", "rouge2", "rougeLsum"}
    assert paper_of(settings.evaluation.paper, "samsum") is None
    assert settings.evaluation.paper.scores.keys() <= set(DATA)


def test_check_shows_what_the_recipe_took_and_the_target(settings_of):
    assert described(settings_of("experiment=rothe/bert2bert", "data=xsum")) == [
        "  recipe      at most 512 + 64 tokens, 128 examples a step, 200,000 steps; noam, 40000 warm-up steps",
        "  target      Rothe et al. 2020, BERT2BERT on xsum: ROUGE-1 37.53, ROUGE-2 15.24, ROUGE-L 30.05",
    ]
    assert "30 epochs" in described(settings_of("experiment=rothe/gpt", "data=wmt14_de_en"))[0]
    [_, target] = described(settings_of("experiment=rothe/gpt", "data=samsum"))
    assert target == "  target      none: Rothe et al. 2020, GPT has no scores for data=samsum"
    assert described(settings_of()) == []


def test_a_score_that_no_metric_computes_is_refused(settings_of):
    [found] = faults(settings_of("data.max_source_length=128", "+evaluation.paper.scores.xsum={rouge9: 1}"))
    assert "evaluation.paper.scores.xsum has rouge9, which no metric computes" in found


QUICK = ("bert2bert",)  # gpt is fitted by tests/tasks/test_decoder_only_run.py


@pytest.mark.parametrize(
    "recipe", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in RECIPES]
)
def test_every_recipe_trains_and_scores_three_tiny_steps(recipe, settings_of, tmp_path):
    words = (f"experiment=rothe/{recipe}", "debug=tiny", "data.name=cnn_dailymail")
    fit.run(settings_of(*words), tmp_path / "run")
    result = RunDir(tmp_path / "run").read_result()
    assert (result["status"], result["steps"]) == ("complete", 3)
    assert {"test/rouge1", "test/nll"} <= result["metrics"].keys()
    assert {"shuffled_document", "decoder_alone"} <= result["controls"].keys()
    assert result["paper"]["source"].startswith("Rothe et al. 2020, ")
    assert json.dumps(result["paper"]["scores"])
