"""Likelihoods are compared only over the same labels, and validation scores rank only rows with the same texts."""

from pathlib import Path

import pytest

from warmstart.config.model import SELECTOR
from warmstart.report.collect import Run, collect
from warmstart.report.compare import Ranking, Row, baseline_row, other_tokens, ranked_by, rows_of
from warmstart.report.differences import differences
from warmstart.report.finding import finding
from warmstart.report.page import render

GPT2 = {"decoder.name": "gpt2", "decoder.path": "gpt2", "decoder.weights": "pretrained"}
UNTRAINED = GPT2 | {"decoder.weights": "random"}
SELECTS = {
    "decoder.name": "ext",
    "decoder.path": "none/ext",
    "decoder.model_type": SELECTOR,
    "decoder.weights": "random",
}
SELECTOR_OF_BERT = SELECTS | {"encoder.name": "bert", "encoder.path": "bert", "encoder.weights": "pretrained"}
BERT = {"encoder.name": "bert", "encoder.path": "bert", "encoder.weights": "pretrained"}
ROBERTA = {"encoder.name": "roberta", "encoder.path": "roberta", "encoder.weights": "pretrained"}
COPIED = {"bridge.embeddings": "copy"}  # the decoder writes with the encoder's tokenizer
SAME = "these rows differ in "


def row_of(choices, best=2.0, monitor="validation/loss", mode="min"):
    validation = {"validation": {"monitor": monitor, "mode": mode, "best": best}}
    examples = {str(i): {"document": "d", "reference": "r", "nll": best, "rouge1": float(i)} for i in range(12)}
    return Row("row", [Run(Path("x"), "complete", validation, dict(choices), "1", examples=examples)])


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (GPT2, GPT2 | {"data.target_form": "sentences"}, SAME + "data.target_form."),
        (GPT2, GPT2 | {"data.target_form": "plain"}, None),  # the default, which an earlier run does not record
        (GPT2, GPT2 | {"data.language": "de"}, None),
        (
            GPT2 | {"data.target_form": "sentences"},
            GPT2 | {"data.target_form": "sentences", "data.language": "de"},
            SAME + "data.language.",
        ),
        (GPT2, GPT2 | {"data.max_source_length": "128"}, None),
        (GPT2, SELECTOR_OF_BERT, "one of these rows selects sentences"),
        (SELECTOR_OF_BERT, SELECTOR_OF_BERT | {"data.max_target_length": "64"}, None),  # the whole summary decides
        (SELECTOR_OF_BERT, SELECTOR_OF_BERT | {"data.limit_train": "64"}, None),
        (SELECTOR_OF_BERT, SELECTOR_OF_BERT | {"encoder.path": "roberta"}, SAME + "encoder.path."),
        *(
            (SELECTOR_OF_BERT, SELECTOR_OF_BERT | {key: value}, f"{SAME}{key}.")
            for key, value in (
                ("data.max_source_length", "128"),
                ("data.truncation", "head_tail"),
                ("data.source_windows", "2"),
                ("data.window_overlap", "9"),
                ("data.language", "de"),
                ("data.clean", "['x']"),
            )
        ),
        (
            SELECTOR_OF_BERT | {"encoder.tokenizer": "x"},
            SELECTOR_OF_BERT | {"encoder.tokenizer": "y", "encoder.path": "roberta"},
            SAME + "encoder.tokenizer.",
        ),
        *(
            (UNTRAINED, UNTRAINED | {key: value}, f"{SAME}{key}.")
            for key, value in (
                ("data.raw_targets", "True"),
                ("data.raw_splits", "['train']"),
                ("data.summary_column", "title"),
                ("data.splits.train", "train[:10%]"),
                ("data.split_at_least", "9"),
                ("data.validation_path", "v.csv"),
                ("data.test_path", "t.csv"),
                ("decoder.model_type", "bert"),
                ("decoder.architecture.vocab_size", "2000"),
            )
        ),
        (GPT2, GPT2 | {"decoder.architecture.vocab_size": "2000"}, None),
        (UNTRAINED | BERT, UNTRAINED | BERT | COPIED, SAME + "bridge.embeddings."),
        (UNTRAINED | BERT | COPIED, UNTRAINED | ROBERTA | COPIED, SAME + "encoder.path."),
        (UNTRAINED | BERT, UNTRAINED | ROBERTA, None),
        (UNTRAINED | BERT | COPIED, UNTRAINED | BERT | COPIED | {"decoder.path": "bart"}, None),
        (UNTRAINED | BERT | COPIED, UNTRAINED | BERT | COPIED | {"data.limit_train": "64"}, None),
        (UNTRAINED | BERT | COPIED, UNTRAINED | BERT | COPIED | {"encoder.tokenizer": "x"}, SAME + "encoder."),
        (BERT | COPIED | UNTRAINED, {"decoder.path": "bert", "decoder.weights": "pretrained"}, None),
    ],
)
def test_likelihoods_over_other_labels_are_not_compared(first, second, why):
    a, b = row_of(first), row_of(second, 1.9)
    for one, other in ((a, b), (b, a)):
        found = other_tokens(one, other)
        assert found is None if why is None else why in found
    (pair,) = differences([a, b])
    assert ("nll" in pair.scores) == ("nll" in pair.p) == (why is None)
    assert (ranked_by([a, b]).metric == "validation/loss") == (why is None)


def test_rows_that_have_only_bits_per_byte_in_common_are_compared_in_it():
    a, b = row_of(GPT2), row_of(GPT2 | {"decoder.path": "llama"})
    for row, bits in ((a, 1.0), (b, 1.5)):
        for i, example in row.runs[0].examples.items():
            del example["rouge1"]  # as with a metric that only the whole split has
            example["bits_per_byte"] = bits + int(i) ** 2 / 100
    (pair,) = differences([a, b])
    assert pair.scores.keys() == pair.p.keys() == {"bits_per_byte"}
    assert pair.scores["bits_per_byte"][0] == pytest.approx(-0.5)


def test_likelihoods_of_selectors_are_per_sentence():
    a, b = row_of(SELECTOR_OF_BERT), row_of(SELECTOR_OF_BERT | {"encoder.path": "roberta"})
    assert other_tokens(a, b).startswith("nats/sentence is omitted: ")


@pytest.mark.parametrize("kinds", [(SELECTOR,), (SELECTOR, "bert"), ("bert",)])
def test_a_page_names_the_unit_of_its_likelihoods(kinds, write_run, tmp_path):
    for kind in kinds:
        write_run(kind, decoder=kind, nll=(0.5, 0.4), model_type=kind)
    page = render(collect([tmp_path]), title="t")
    title = "nats/sentence" if kinds == (SELECTOR,) else "nats/token or sentence" if len(kinds) > 1 else "nats/token"
    assert f"<button>{title}</button>" in page


def ranking_of(first, second, **monitored):
    return ranked_by(
        [row_of({"data.path": "a"} | first, **monitored), row_of({"data.path": "a"} | second, **monitored)]
    )


@pytest.mark.parametrize(
    ("second", "same"),
    [
        ({}, True),
        ({"data.path": "b"}, False),
        ({"data.kind": "news"}, False),
        ({"data.subset": "2.0.0"}, False),
        ({"data.limit_validation": "16"}, False),
        ({"data.validation_path": "b"}, False),
        ({"data.summary_column": "title"}, False),
        ({"data.objective": "prefix"}, False),
        ({"data.raw_targets": "True"}, False),
        ({"data.raw_targets": "True", "data.raw_splits": "['train']"}, True),
        ({"data.limit_train": "16", "data.limit_test": "16", "data.clean": "['x']"}, True),  # not of validation
        ({"trainer.validation_samples": "16"}, None),
    ],
)
def test_scores_of_other_validation_texts_do_not_rank(second, same):
    by_rouge = {"best": 30.0, "monitor": "validation/rouge1", "mode": "max"}
    assert (ranking_of({}, second).metric == "validation/loss") == (same is not False)  # of the whole split
    test = Ranking("test/rouge1", whole_split=True)
    assert ranking_of({}, second, **by_rouge) == (Ranking("validation/rouge1") if same else test)


def test_the_training_path_counts_only_if_validation_is_taken_from_it():
    own, trained = {"data.validation_path": "v"}, {"data.path": "None", "data.train_path": "t"}
    assert ranking_of(own, own | trained).metric == "validation/loss"
    assert ranking_of({"data.path": "None"}, trained).metric == "test/rouge1"


def test_a_row_without_a_validation_score_does_not_matter():
    """An evaluation on other texts has no validation score."""
    rows = [row_of({"data.path": "a"}), row_of({"data.path": "a"}), row_of({"data.path": "b"}, None)]
    assert ranked_by(rows).metric == "validation/loss"


def scored(score):
    return {"validation": {"monitor": "validation/rouge1", "mode": "max", "best": score}}


def finding_of(folder):
    rows = rows_of(collect([folder]))
    compared = [*rows, baseline_row(rows[0], "lead1", "lead1 (baseline)", 0)]
    return finding(rows, compared, differences(compared), ranked_by(rows), "rouge1")


def test_rows_of_other_texts_have_no_best_row(write_run, tmp_path):
    texts = {"name": "cnn", "kind": "hub", "path": "cnn"}
    write_run(
        "a", data={"name": "news", "kind": "news", "limit_validation": 16}, scores=(31.0,) * 10, result=scored(31)
    )
    write_run("b", data=texts, scores=(30.0,) * 10, text="c d", result=scored(30))
    text = " ".join(finding_of(tmp_path))
    assert "best of" not in text
    assert text.startswith(
        "No row is named the best, because not all rows have ROUGE-1 of the same examples; the first "
    )


def test_rows_of_the_same_test_texts_have_one(write_run, tmp_path):
    """The validation limits differ, so the test score ranks."""
    write_run("a", data={"limit_validation": 16}, scores=(30.0,) * 10, result=scored(31))
    write_run("b", encoder="roberta", scores=(31.0,) * 10, result=scored(30))
    assert "roberta is the best of 2 rows by test/rouge1" in " ".join(finding_of(tmp_path))
    assert "as no run has a comparable validation score" in render(collect([tmp_path]), title="t")
