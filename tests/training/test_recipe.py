"""What ``trainer.recipe=auto`` chooses for files of different sizes."""

import json

import pytest
from transformers import BertConfig

from warmstart.data.sources.load import load_source
from warmstart.errors import UserError
from warmstart.profiling.cost import predict
from warmstart.runs.identity import config_hash
from warmstart.tasks import check
from warmstart.tasks.check import faults, pair_without_values
from warmstart.training.plausibility import implausible
from warmstart.training.recipe import recipe_for, with_recipe

PAIR = ("encoder=minilm", "decoder=minilm", "data=files")


@pytest.fixture
def chosen(settings_of, tmp_path):
    """Return a function that applies the recipe to a file of some rows."""

    def make(rows, *words, words_in_summary=5, explicit=()):
        file = tmp_path / f"{rows}.jsonl"
        summary = " ".join(["boats"] * words_in_summary)
        lines = [
            {"document": f"Ana has {i} boats. " + "She sails. " * (i % 40), "summary": summary} for i in range(rows)
        ]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return recipe_for(settings_of(*PAIR, f"data.path='{file}'", *words), explicit)

    return make


@pytest.mark.parametrize("rows", [7, 30, 300, 3000, 30_000])
def test_every_size_gets_a_valid_fit_without_a_warning(rows, chosen):
    settings = chosen(rows).settings
    assert faults(settings) == []
    steps = predict(settings, pair_without_values(settings)).steps
    assert implausible(settings, steps, rows, [8.0] * 10) == []
    assert settings.generation.min_new_tokens == 0
    assert 8 <= settings.generation.max_new_tokens == settings.data.max_target_length <= 40


def test_small_files_keep_enough_rows_for_validation_and_test(chosen):
    for rows, fewest in ((30, 5), (300, 20)):
        source = load_source(chosen(rows).settings.data)
        sizes = [len(source.split(split)) for split in ("validation", "test", "train")]
        assert min(sizes[:2]) >= fewest
        assert sizes[2] >= rows * 0.6


def test_few_validation_rows_choose_no_checkpoint(chosen):
    trainer = chosen(30).settings.trainer
    assert (trainer.epochs_per_validation, trainer.patience) == (trainer.max_epochs, None)
    assert chosen(300).settings.trainer.patience == 3


def test_long_summaries_get_a_minimum_length_and_are_not_cut(chosen):
    settings = chosen(100, words_in_summary=120).settings
    assert settings.data.max_target_length > 1.3 * 120
    assert 40 < settings.generation.min_new_tokens < 120


def test_an_explicit_option_keeps_its_value_and_the_others_follow_it(chosen):
    few = chosen(
        300,
        "data.batch.size=2",
        "data.batch.max_tokens=null",
        "trainer.max_epochs=3",
        explicit={"data.batch.size", "data.batch.max_tokens", "trainer.max_epochs"},
    ).settings
    assert (few.data.batch.size, few.data.batch.max_tokens, few.trainer.max_epochs) == (2, None, 3)
    assert few.trainer.validations_per_epoch == 2


def test_learning_rates_follow_the_hidden_sizes_of_any_checkpoint(settings_of, tmp_path):
    rows = [{"document": f"Ana has {i} boats and {i} oars.", "summary": f"{i} boats"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    BertConfig(hidden_size=1024, num_attention_heads=16).save_pretrained(tmp_path / "large")
    words = ("data=files", f"data.path='{tmp_path}/rows.jsonl'", "decoder=gpt2")
    for encoder in (["encoder=hf", f"encoder.path={tmp_path}/large"], ["encoder=bert_large"]):
        recipe = recipe_for(settings_of(*words, *encoder), ())
        assert recipe.settings.optim.encoder_rate == pytest.approx(1e-4 * 384 / 1024)
        assert recipe.settings.optim.new_rate == pytest.approx(6e-4 * 384 / 768)
        assert any("for an encoder with the hidden size 1024" in str(choice) for choice in recipe.choices)
    alone = recipe_for(settings_of(*words, "encoder=none"), ()).choices
    assert [one.key for one in alone if one.key.endswith("_rate")] == ["optim.decoder_rate", "optim.new_rate"]


def test_the_hash_holds_what_was_chosen(chosen, settings_of, tmp_path):
    first, plain = chosen(30), settings_of(*PAIR, f"data.path='{tmp_path / '30.jsonl'}'")
    assert config_hash(first.settings) == config_hash(chosen(30).settings) != config_hash(plain)
    words = [f"{one.key}={'null' if one.value is None else one.value}" for one in first.choices]
    spelled = settings_of(*PAIR, f"data.path='{tmp_path / '30.jsonl'}'", "trainer.recipe=none", *words)
    assert config_hash(spelled) == config_hash(first.settings)


def test_nothing_is_chosen_for_other_data_or_without_a_command_line(chosen, settings_of, tmp_path):
    assert recipe_for(settings_of("data=written"), ()).choices == ()
    missing = settings_of(*PAIR, f"data.path='{tmp_path / 'none.csv'}'")
    assert recipe_for(missing, ()).settings == missing
    assert with_recipe(settings_of(*PAIR, "data.path=x.csv")).choices == ()


CHINESE = "本届奥运会开幕式将于周五晚在国家体育场举行预计有九万名观众到场。"
RUSSIAN = "Церемония открытия состоится вечером в пятницу на национальном стадионе."


@pytest.mark.parametrize("summary", [CHINESE, RUSSIAN], ids=["zh", "ru"])
def test_summaries_in_other_scripts_are_not_cut_and_need_no_minimum(summary, settings_of, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"document": f"{i} {summary}", "summary": summary * (1 if i % 9 else 2)} for i in range(50)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = recipe_for(settings_of(*PAIR, f"data.path='{file}'"), ()).settings
    assert settings.data.max_target_length >= 128
    assert settings.data.max_target_length >= len(2 * summary.encode()) / 1.5  # a byte-level tokenizer of English
    assert settings.generation.max_new_tokens >= 142
    assert settings.generation.min_new_tokens < 0.2 * len(summary.encode())  # a tokenizer of many languages


def test_a_limit_that_is_not_below_the_default_gives_that_reason(settings_of, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"document": f"{i} {RUSSIAN}", "summary": "Да."}) + "\n" for i in range(50)))
    made = recipe_for(settings_of(*PAIR, f"data.path='{file}'", "generation=greedy"), ())
    assert made.settings.data.max_target_length == 128
    assert made.settings.generation.max_new_tokens == 142
    limits = ("data.max_target_length", "generation.max_new_tokens")
    assert all("default" in choice.reason for choice in made.choices if choice.key in limits)


def test_one_explicit_interval_of_validations_leaves_the_other_at_one(chosen):
    for each, every in ((2, 1), (1, 3)):
        words = [f"trainer.validations_per_epoch={each}", f"trainer.epochs_per_validation={every}"]
        key = words[0 if each > 1 else 1]
        settings = chosen(30, key, explicit={key.partition("=")[0]}).settings
        assert (settings.trainer.validations_per_epoch, settings.trainer.epochs_per_validation) == (each, every)
        assert faults(settings) == []


def test_an_explicit_maximum_bounds_the_chosen_minimum_length(chosen):
    key = "generation.max_new_tokens"
    settings = chosen(100, f"{key}=48", words_in_summary=120, explicit={key}).settings
    assert (settings.generation.min_new_tokens, settings.generation.max_new_tokens) == (24, 48)


def test_an_explicit_minimum_length_raises_the_chosen_maximum(chosen):
    key = "generation.min_new_tokens"
    settings = chosen(100, f"{key}=50", explicit={key}).settings
    assert (settings.generation.min_new_tokens, settings.generation.max_new_tokens) == (50, 100)


def test_an_epoch_of_few_steps_gets_one_validation(chosen):
    keys = {"trainer.max_epochs", "data.batch.max_tokens"}
    for tokens in (100_000, 10_000):
        words = ("trainer.max_epochs=1", f"data.batch.max_tokens={tokens}")
        assert chosen(300, *words, explicit=keys).settings.trainer.validations_per_epoch == 1


@pytest.fixture
def paths(tmp_path):
    """Options of a training file of 300 rows, a validation file of 40, and a test file without summaries."""
    for split, rows, key in (("train", 300, "summary"), ("validation", 40, "summary"), ("test", 20, "none")):
        lines = [json.dumps({"document": f"Ana has {split} {i}.", key: "Ana."}) for i in range(rows)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    return {split: f"data.{split}_path='{tmp_path / split}.jsonl'" for split in ("train", "validation", "test")}


def test_a_test_file_that_the_fit_does_not_read_is_not_needed(paths, settings_of, caplog):
    untested = settings_of(*PAIR, *paths.values(), "evaluation.test=false")
    assert recipe_for(untested, ()).choices
    assert not caplog.records
    split_off = settings_of(*PAIR, paths["train"], paths["validation"], "evaluation.test=false")
    tested = settings_of(*PAIR, paths["train"], paths["validation"])
    assert recipe_for(split_off, ()).choices == recipe_for(tested, ()).choices


def test_texts_that_cannot_be_read_are_reported_once(paths, settings_of, caplog, tmp_path):
    settings = settings_of(*PAIR, *paths.values())
    assert recipe_for(settings, ()).choices == ()
    with pytest.raises(UserError, match=r"data\.summary_column='summary' is not a column"):
        check.run(settings, tmp_path)
    assert not caplog.records


def test_the_rows_of_a_validation_file_are_counted(paths, settings_of, tmp_path):
    words = [*PAIR, paths["train"], paths["validation"], "data.split_at_least=1"]
    enough = recipe_for(settings_of(*words), {"data.split_at_least"}).settings.trainer
    assert enough.patience == 3
    file = tmp_path / "validation.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:4]))
    few = recipe_for(settings_of(*words), {"data.split_at_least"})
    assert few.settings.trainer.patience is None
    assert any("4 validation rows are too few" in choice.reason for choice in few.choices)


def test_larger_models_get_lower_rates(chosen):
    small, large = chosen(30).settings.optim, chosen(30, "encoder=bert", "decoder=gpt2").settings.optim
    assert large.encoder_rate == pytest.approx(small.encoder_rate / 2)
    assert large.new_rate == pytest.approx(small.new_rate / 2)


@pytest.mark.parametrize(
    "word", ["trainer.devices=0", "trainer.nodes=0", "trainer.accumulate=0", "data.split_at_least=0"]
)
def test_a_value_out_of_bounds_is_left_to_the_message_about_it(word, chosen):
    outcome = chosen(30, word, explicit={word.partition("=")[0]})
    assert not outcome.choices
    assert f"{word} is invalid. Set a number that is at least 1." in faults(outcome.settings)
