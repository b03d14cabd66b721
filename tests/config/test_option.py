"""Options are collected from the fields of the config, with their bounds, documentation and effect on results."""

import math

import pytest

from warmstart.config.option import Bounds
from warmstart.config.schema import CHANGES_NO_NUMBER, OPTIONS, Config, about, plain, unknown_option
from warmstart.runs.explain import explain

# betas is a list, which has a check of its own; the operating system checks the port.
WITHOUT_BOUNDS = {"optim.betas"}


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        (Bounds(at_least=1), (1, 2.5), (0, math.nan, math.inf), "at least 1"),
        (Bounds(at_least=1, no_bound=-1), (-1, 1), (0, -2), "at least 1, or -1 for no limit"),
        (Bounds(at_least=0, at_most=1), (0, 1), (-0.1, 1.1, math.nan), "from 0 to 1"),
        (Bounds(at_least=0, below=1), (0, 0.9), (1, math.nan), "from 0 to below 1"),
        (Bounds(above=0, at_most=1), (0.1, 1), (0, math.inf, math.nan), "above 0, and at most 1"),
        (Bounds(choices=("min", "max")), ("min",), ("best", ""), "one of min, max"),
    ],
)
def test_bounds_allow_what_their_text_states(bounds, inside, outside, text):
    assert all(map(bounds.allow, inside))
    assert not any(map(bounds.allow, outside))
    assert str(bounds) == text
    assert bounds
    assert not Bounds()


def test_every_key_of_the_config_is_a_documented_option():
    assert set(OPTIONS) == set(leaves(plain(Config())))
    for key, one in OPTIONS.items():
        assert one.doc.endswith("."), key
        assert one.summary.endswith("."), key
        assert len(f"{key} ({one.type}): {one.summary}") < 240, key


def test_every_number_has_bounds_and_every_default_is_within_them():
    numbers = {key for key, one in OPTIONS.items() if {"int", "float"} & set(one.type.split())}
    assert {key for key in numbers if not OPTIONS[key].bounds} == WITHOUT_BOUNDS
    for key, one in OPTIONS.items():
        assert not one.bounds or one.default is None or one.bounds.allow(one.default), key


def test_a_group_that_changes_no_result_covers_its_fields():
    assert "logger" in CHANGES_NO_NUMBER
    assert not OPTIONS["logger.wandb"].changes_result
    assert not OPTIONS["encoder.name"].changes_result
    assert OPTIONS["encoder.path"].changes_result


def test_types_are_shown_in_words():
    found = {key: OPTIONS[key].type for key in ("seed", "optim.betas", "data.path", "optim.decay", "trainer.extra")}
    assert found == {
        "seed": "int",
        "optim.betas": "list of float",
        "data.path": "str or null",
        "optim.decay": "one of linear, cosine, inverse_sqrt, constant, noam",
        "trainer.extra": "mapping",
    }


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("data.max_source_length=long", "data.max_source_length (int, at least 2): Longest source in tokens"),
        ("optim.decay=x", "optim.decay (one of linear, cosine, inverse_sqrt, constant, noam): How the learning rate"),
        ("data.max_sorce_length=5", "Did you mean:\n  data.max_source_length (int, at least 2): Longest"),
        ("+data.max_sorce_length=5", "Did you mean:\n  data.max_source_length (int, at least 2): Longest"),
    ],
)
def test_an_error_about_a_key_documents_the_option(word, shown, settings_of):
    with pytest.raises(Exception) as refused:  # noqa: PT011 - Hydra's or ours
        settings_of(word)
    assert shown in explain(refused.value)
    assert "--help-all" in explain(refused.value)


def test_help_on_a_key_inside_an_option_is_about_the_option_and_on_a_group_only_the_command():
    assert about("trainer.extra.foo").startswith(" trainer.extra (mapping): ")
    assert about("data") == about("data.batch") == about("") == " To list all options: --help-all"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("trainer.max_step", ["trainer.max_steps", "trainer.max_epochs"]),
        ("max_steps", ["trainer.max_steps"]),
        ("trainer.batch_size", ["data.batch.size"]),
        ("weights", ["encoder.weights", "decoder.weights"]),
        ("decodr", ["decoder"]),
        ("experimnt", ["experiment"]),
    ],
)
def test_an_unknown_key_suggests_the_most_similar_keys(key, expected):
    first, *suggested, last = unknown_option(key).splitlines()
    assert first == f"There is no option {key}. Did you mean:"
    assert [line.split()[0] for line in suggested][: len(expected)] == expected
    assert last == "To list all options: --help-all"


def test_an_unknown_key_without_a_similar_one_lists_the_options_of_its_group():
    assert unknown_option("optim.lr").startswith("There is no option optim.lr. The options of optim: encoder_rate, ")
    assert unknown_option("qqq.lr") == "There is no option qqq.lr. To list all options: --help-all"
