"""A fit of too few steps, or with lengths that contradict its labels, warns with the settings to change."""

import logging

import pytest

from warmstart.tasks import check, fit
from warmstart.training.plausibility import implausible

LABELS = [8, 9, 9, 10, 14]
LENGTHS = ["generation.min_new_tokens=0", "generation.max_new_tokens=20"]


def test_few_steps_are_reported_with_settings_that_take_enough(settings_of):
    (warning,) = implausible(settings_of(*LENGTHS), 3, 27, LABELS)
    assert warning.startswith("The fit takes 3 optimizer steps over 27 training examples.")
    assert warning.endswith("Set data.batch.size=8 trainer.max_epochs=50.")  # 4 steps an epoch
    assert implausible(settings_of(*LENGTHS), 50, 27, LABELS) == []
    ranks = settings_of(*LENGTHS, "trainer.devices=2", "trainer.accumulate=2", "data.batch.size=4")
    (warning,) = implausible(ranks, 3, 27, LABELS)
    assert warning.endswith("Set data.batch.size=4 trainer.max_epochs=100.")  # 2 steps an epoch


def test_lengths_in_tokens_are_no_matter_of_a_decoder_that_selects_sentences(settings_of):
    assert implausible(settings_of("encoder=bert", "decoder=ext"), 99, 2000, LABELS) == []


def test_steps_that_the_user_or_the_time_sets_have_other_remedies(settings_of):
    assert implausible(settings_of(*LENGTHS, "trainer.max_steps=3"), 3, 27, LABELS) == []
    assert implausible(settings_of(*LENGTHS, "trainer.max_steps=900"), 3, 27, LABELS) != []
    (warning,) = implausible(settings_of(*LENGTHS, "trainer.budget_minutes=1"), 3, 27, LABELS)
    assert "Raise trainer.budget_minutes" in warning


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "min_new_tokens=56, but half of the training summaries have at most 9 tokens"),
        (["generation=short"], None),
        (["generation=greedy", "generation.max_new_tokens=2"], "max_new_tokens=2, but half of the training summaries"),
        (["generation=greedy", "generation.max_new_tokens=3"], None),
        (["generation=greedy", "generation.min_new_tokens=9"], None),
    ],
)
def test_lengths_that_contradict_the_labels_are_reported(words, expected, settings_of):
    found = implausible(settings_of(*words), 1000, 5, LABELS)
    assert len(found) == int(expected is not None)
    if expected:
        assert expected in found[0]
        assert "generation.max_new_tokens=14." in found[0]


FEW = ("encoder=minilm", "decoder=minilm", *LENGTHS)


def doubts(settings, examples):
    return implausible(settings, 500, examples, LABELS, check.pair_without_values(settings))


def test_few_examples_for_new_cross_attention_are_reported_with_what_needs_fewer(settings_of):
    (warning,) = doubts(settings_of(*FEW), 999)
    assert warning.startswith("The fit has 999 training examples.")
    assert "encoder=none decoder=smollm2" in warning
    assert doubts(settings_of(*FEW), 1000) == []


@pytest.mark.parametrize(
    "words",
    [
        ("encoder=none", "decoder=smollm2"),
        ("encoder=minilm", "decoder=ext"),
        ("encoder=minilm", "decoder=minilm", "ckpt_weights=runs/adapted"),
        ("encoder=minilm", "decoder=minilm", "data.objective=prefix"),
        ("encoder=minilm", "decoder=minilm", "debug=tiny"),
    ],
)
def test_what_does_not_have_to_learn_to_read_needs_no_more_examples(words, settings_of):
    assert doubts(settings_of(*words, *LENGTHS), 20) == []


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        "document,summary\n" + "".join(f"The river {i} rose by {i} m.,River {i} rose.\n" for i in range(30))
    )
    words = ["debug=tiny", "trainer.max_steps=-1", "generation.min_new_tokens=56", "generation.max_new_tokens=60"]
    return [*words, "data=files", f"data.path={path}"]


def test_a_fit_and_its_check_report_both(settings_of, own, tmp_path, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        fit.run(settings_of(*own, "evaluation.test=false"), tmp_path / "run")
    warnings = [one.getMessage() for one in caplog.records if one.name == "warmstart.training.plausibility"]
    capsys.readouterr()
    check.run(settings_of(*own), tmp_path)
    printed = capsys.readouterr().out
    for found in ("\n".join(warnings), printed):
        assert "generation.min_new_tokens=56" in found
        assert "optimizer steps over" in found
    assert len(warnings) == 2
    assert printed.count("Warning: ") == 2


@pytest.mark.parametrize("word", ["data=cnn_dailymail", "debug=tiny"])
def test_the_check_of_sound_settings_reports_nothing(word, settings_of, tmp_path, capsys):
    check.run(settings_of(word), tmp_path)
    assert "Warning" not in capsys.readouterr().out
