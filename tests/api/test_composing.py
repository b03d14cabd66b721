"""Options in Python become words that Hydra reads as the same values."""

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from warmstart.api.composing import composed, words_of
from warmstart.config.evaluation import GenerationDtype
from warmstart.config.schema import to_settings


def test_values_arrive_as_they_are():
    overrides = {
        "debug": "tiny",
        "generation.dtype": GenerationDtype.bfloat16,
        "trainer.max_minutes": None,
        "trainer.max_steps": 5,
        "optim.new_rate": 1e-6,
        "generation.do_sample": True,
        "data.clean": ["collapse_whitespace", "mend_quotes"],
        "data.path": Path("a 'b' (1), c.csv"),
        "name": "1e5",
        "input": "",
        "trainer.extra": {"num_sanity_val_steps": 0},
        "encoder.architecture": {"model_type": "bert", "note": "a, b: {c}"},
    }
    with composed(words_of(overrides)) as cfg:
        found = to_settings(cfg)
    assert found.generation.dtype is GenerationDtype.bfloat16
    assert (found.trainer.max_minutes, found.trainer.max_steps, found.optim.new_rate) == (None, 5, 1e-6)
    assert found.generation.do_sample is True
    assert found.data.clean == ["collapse_whitespace", "mend_quotes"]
    assert (found.data.path, found.name, found.input) == ("a 'b' (1), c.csv", "1e5", "")
    assert found.trainer.extra == {"num_sanity_val_steps": 0}
    assert found.encoder.architecture["note"] == "a, b: {c}"


def test_words_are_taken_as_they_are_but_for_quotes():
    assert words_of(["trainer.max_steps=5", "name=a (1)"]) == ["trainer.max_steps=5", "name='a (1)'"]
    assert words_of(None) == []


def fails_inside():
    with composed([]):
        assert HydraConfig.initialized()
        raise ZeroDivisionError


def test_an_error_inside_ends_the_context_too():
    with pytest.raises(ZeroDivisionError):
        fails_inside()
    assert not HydraConfig.initialized()
