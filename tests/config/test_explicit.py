"""Which options of a command the user has set."""

from pathlib import Path

import pytest

from warmstart.cli.main import config_dir
from warmstart.config.explicit import CommandLine, explicit_options

CHOICES = {"generation": "beam", "trainer": "default", "data": "cnn_dailymail", "experiment": None, "debug": None}


@pytest.fixture
def explicit(settings_of):
    """Return a function that gives the options set by some words."""

    def find(*words):
        named = dict(word.split("=", 1) for word in words)
        line = CommandLine(words, CHOICES | {key: named[key] for key in CHOICES if key in named}, [Path(config_dir())])
        # The fixture's own cache folder and the default choices of encoder and decoder are not on this command line.
        found = explicit_options(settings_of(*words), line)
        return {key for key in found if not key.startswith(("encoder.", "decoder.")) and key != "data.cache_dir"}

    return find


def test_a_named_option_is_set_whatever_its_value(explicit):
    assert "trainer.max_epochs" in explicit("trainer.max_epochs=3")
    assert "data.batch.max_tokens" in explicit("data.batch={max_tokens: 99}")
    assert "trainer.max_epochs" not in explicit()


def test_a_named_choice_sets_the_options_of_its_file_only(explicit):
    assert {"generation.min_new_tokens", "generation.num_beams"} <= explicit("generation=beam")
    assert "generation.no_repeat_ngram_size" not in explicit("generation=beam")
    assert explicit("trainer=cpu") >= {"trainer.accelerator"}
    assert "trainer.max_epochs" not in explicit("trainer=cpu")


def test_the_default_choice_sets_nothing(explicit):
    assert not {key for key in explicit() if key.startswith("generation.")}


def test_a_value_other_than_the_default_is_set_wherever_it_comes_from(settings_of):
    settings = settings_of("trainer.max_epochs=7", "generation.min_new_tokens=5")
    line = CommandLine([], CHOICES, [Path(config_dir())])  # as from a config file of the user's
    assert {"trainer.max_epochs", "generation.min_new_tokens"} <= explicit_options(settings, line)
    assert "generation.max_new_tokens" not in explicit_options(settings, line)


def test_a_choice_that_a_config_file_names_sets_the_options_of_its_file(settings_of):
    words = ("optim=bertsum", "generation=short")
    choices = CHOICES | {"optim": "bertsum", "generation": "short"}
    found = explicit_options(settings_of(*words), CommandLine([], choices, [Path(config_dir())]))
    assert {"optim.encoder_rate", "optim.warmup_steps", "generation.max_new_tokens"} <= found
    assert "trainer.max_epochs" not in found


def test_an_experiment_and_debug_name_a_whole_run():
    assert not CommandLine([], CHOICES, []).names_whole_run
    assert CommandLine([], CHOICES | {"experiment": "demo"}, []).names_whole_run
    assert CommandLine([], CHOICES | {"debug": "tiny"}, []).names_whole_run
