"""A field states its bounds, its documentation and whether it changes a result; options are read from that."""

import math

import pytest

from warmstart.config.option import Bounds
from warmstart.config.schema import CHANGES_NO_NUMBER, OPTIONS, Config, about, plain
from warmstart.runs.explain import explain

# A list of two numbers, which AdamW's own check covers, and a port, which the system checks.
WITHOUT_BOUNDS = {"optim.betas", "port"}


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
        (Bounds(at_least=1, no_bound=-1), (-1, 1), (0, -2), "at least 1, or -1 for no bound"),
        (Bounds(at_least=0, at_most=1), (0, 1), (-0.1, 1.1, math.nan), "from 0 to 1"),
        (Bounds(at_least=0, below=1), (0, 0.9), (1, math.nan), "from 0 to below 1"),
        (Bounds(above=0, at_most=1), (0.1, 1), (0, math.inf, math.nan), "above 0, and at most 1"),
        (Bounds(choices=("min", "max")), ("min",), ("best", ""), "one of min, max"),
    ],
)
def test_bounds_hold_what_they_say(bounds, inside, outside, text):
    assert all(map(bounds.allow, inside))
    assert not any(map(bounds.allow, outside))
    assert str(bounds) == text
    assert bounds
    assert not Bounds()


def test_every_key_of_the_config_is_an_option_with_a_sentence_about_it():
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


def test_types_are_named_for_a_person():
    found = {key: OPTIONS[key].type for key in ("seed", "optim.betas", "data.path", "optim.decay", "trainer.extra")}
    assert found == {
        "seed": "int",
        "optim.betas": "list of float",
        "data.path": "str or null",
        "optim.decay": "one of linear, cosine, inverse_sqrt, constant",
        "trainer.extra": "mapping",
    }


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.max_source_length=long", "data.max_source_length (int, at least 2): Longest source in tokens"),
        ("optim.decay=x", "optim.decay (one of linear, cosine, inverse_sqrt, constant): How the learning rate falls"),
        ("data.max_sorce_length=5", "The nearest option: data.max_source_length (int, at least 2): Longest source"),
        ("+data.max_sorce_length=5", "The nearest option: data.max_source_length (int, at least 2): Longest source"),
    ],
)
def test_an_invalid_or_unknown_key_is_answered_with_its_documentation(word, said, settings_of):
    with pytest.raises(Exception) as refused:  # noqa: PT011 - Hydra's or ours
        settings_of(word)
    assert said in explain(refused.value)
    assert "python -m warmstart.config.reference" in explain(refused.value)


def test_a_key_below_an_option_is_that_option_and_a_group_is_none():
    assert about("trainer.extra.foo").startswith(" trainer.extra (mapping): ")
    assert about("data") == about("data.batch") == about("") == " Every option: python -m warmstart.config.reference"
