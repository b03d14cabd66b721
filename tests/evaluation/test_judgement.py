"""The judgement of a model that reads its source, one that does not, and one that copies; and its table."""

import io

import numpy as np
import pytest
from rich.console import Console

from warmstart.config.data import BASELINES
from warmstart.config.evaluation import EvaluationSettings
from warmstart.config.metrics import split_of
from warmstart.data.sources.base import Example
from warmstart.errors import UserError
from warmstart.evaluation.baselines import lead
from warmstart.evaluation.judgement import judge, novel_bigram_fraction
from warmstart.evaluation.likelihood import bits_per_byte
from warmstart.evaluation.metrics.rouge import KINDS, rouge_scores
from warmstart.evaluation.score_table import score_table, scores_of_split, statements, verdict

SETTINGS = EvaluationSettings(bootstrap_samples=200)


@pytest.fixture(scope="module")
def judged(documents, references):
    def judge_it(predictions, **settings):
        chosen = EvaluationSettings(**({"bootstrap_samples": 200} | settings))
        return judge(predictions, references, documents, chosen, 0)

    return judge_it


def rival(difference, low, high, **others):
    means = {f"{kind}_difference": difference for kind in KINDS}
    return means | {f"{kind}_difference_ci": [low, high] for kind in KINDS} | others


def test_a_model_that_reads_beats_control_and_lead(judged, references):
    stated = verdict(judged(references))
    assert "It reads its document: +" in stated
    assert "It beats lead1: +" in stated
    assert "It beats lead3: +" in stated


def test_a_model_that_does_not_read_is_detected(judged, references):
    blind = judged(["The same sentence for all."] * len(references))
    stated = verdict(blind)
    assert "It does not show that it reads its document: +0.00" in stated
    assert "It does not beat lead1" in stated
    assert "summaries repeat each other" in stated
    assert blind.controls["shuffled_document"]["rouge1"] == pytest.approx(blind.metrics["test/rouge1"])


def test_a_model_that_copies_the_lead_is_not_distinguishable_from_it(judged, documents):
    copied = judged(lead(documents, 1))
    assert copied.baselines["lead1"]["rouge1_difference_ci"] == [0.0, 0.0]
    assert "It is not distinguishable from lead1: +0.00 ROUGE-1" in verdict(copied)
    assert copied.metrics["test/novel_bigram_fraction"] == 0.0


@pytest.mark.parametrize(
    ("low", "high", "of_control", "of_lead"),
    [
        (0.1, 2.0, "It reads its document", "It beats lead1"),
        (-1.0, 1.0, "does not show that it reads", "is not distinguishable from lead1"),
        (-2.0, -0.1, "does not show that it reads", "does not beat lead1"),
    ],
)
def test_the_sentence_follows_the_paired_interval(low, high, of_control, of_lead):
    row = rival((low + high) / 2, low, high)
    stated = statements({}, {"lead1": row}, {"shuffled_document": row})
    assert of_control in stated[0]
    assert of_lead in stated[1]
    assert len(stated) == 2


def test_another_kind_of_rouge_that_disagrees_is_stated():
    row = rival(1.0, 0.5, 1.5, rouge2_difference=-0.4, rouge2_difference_ci=[-0.9, 0.1])
    (stated,) = statements({}, {"lead3": row}, {})
    assert stated.startswith("It beats lead3: +1.00 ROUGE-1 [+0.50, +1.50].")
    assert stated.endswith("By ROUGE-2 it is not distinguishable: -0.40 [-0.90, +0.10].")


def test_bits_per_byte_are_averaged_over_the_references_that_have_them(references):
    bits = np.linspace(1.0, 2.0, len(references))
    bits[1] = np.nan
    judgement = judge(references, references, references, SETTINGS, 0, bits_per_byte=bits)
    assert judgement.metrics["test/bits_per_byte"] == pytest.approx(np.nanmean(bits))
    assert judgement.metrics["test/bits_per_byte_examples"] == len(references) - 1
    nothing = judge(references, references, references, SETTINGS, 0, bits_per_byte=np.full(len(references), np.nan))
    assert not any("bits" in name for name in (*nothing.metrics, *nothing.per_example))


def test_a_likelihood_that_is_nan_leaves_no_mean_of_the_others(references):
    """A tokenizer that loses a part of a text is another reason for NaN, which only leaves out that reference."""
    nats, tokens = np.full(len(references), 2.0), [4] * len(references)
    nats[3] = np.nan
    bits = bits_per_byte(nats, tokens, ["lost", *references[1:]], references)
    judgement = judge(references, references, references, SETTINGS, 0, likelihoods={"own": nats}, bits_per_byte=bits)
    for name in ("nll", "bits_per_byte"):
        assert np.isnan(judgement.metrics[f"test/{name}"])
        assert np.isnan(judgement.metrics[f"test/{name}_ci"]).all()
    assert judgement.metrics["test/bits_per_byte_examples"] == len(references) - 2
    assert np.isnan(judgement.per_example["bits_per_byte"][[0, 3]]).all()
    bits = np.full(len(references), np.nan)
    judgement = judge(references, references, references, SETTINGS, 0, likelihoods={"own": nats}, bits_per_byte=bits)
    assert np.isnan(judgement.metrics["test/bits_per_byte"])


def test_controls_without_a_likelihood_have_scores_only(references):
    """A model that selects sentences has labels of one document only."""
    nats = {"own": np.linspace(0, 1, len(references))}
    judgement = judge(references, references, references, SETTINGS, 0, likelihoods=nats, alone="A text.")
    assert judgement.metrics["test/nll"] == pytest.approx(0.5)
    assert judgement.controls.keys() == {"shuffled_document", "decoder_alone"}
    assert not any("nll" in name for control in judgement.controls.values() for name in control)
    stated = verdict(judgement)
    assert "It reads its document" in stated
    assert "ikel" not in stated


def test_controls_by_likelihood_and_without_a_source(judged, references):
    n = len(references)
    spread = np.linspace(0, 0.1, n)
    nats = {"own": 2.0 + spread, "shuffled_document": 2.5 + spread, "decoder_alone": 2.0 + spread[::-1]}
    judgement = judge(references, references, references, SETTINGS, 0, likelihoods=nats, alone="A text of its own.")
    assert judgement.metrics["test/nll"] == pytest.approx(2.05)
    assert judgement.per_example["nll"] is nats["own"]
    for kind in ("rouge1", "rougeLsum"):
        assert judgement.per_example[f"lead1/{kind}"].mean() == judgement.baselines["lead1"][kind]
    shuffled, alone = (judgement.controls[name] for name in ("shuffled_document", "decoder_alone"))
    assert shuffled["nll_difference"] == pytest.approx(-0.5)
    assert alone["text"] == "A text of its own."
    assert alone["rouge1"] == pytest.approx(rouge_scores(["A text of its own."] * n, references)["rouge1"].mean())
    stated = verdict(judgement)
    assert "References are likelier given its own source: +0.500 nats per token [+0.500, +0.500]." in stated
    assert "The source counts: +" in stated
    assert "References are neither likelier nor less likely given its own source: " in stated
    shown = Console(file=io.StringIO(), width=100)
    shown.print(score_table(judgement, "model"))
    assert "decoder only" in shown.file.getvalue()
    worse = judge(references, references, references, SETTINGS, 0, likelihoods=nats | {"shuffled_document": spread})
    assert "References are less likely given its own source: -2.000 nats per token" in verdict(worse)


@pytest.mark.filterwarnings("error")
def test_likelihoods_that_are_not_finite_are_stated_without_a_number(references, documents):
    n = len(references)
    nats = {"own": np.full(n, 2.0), "shuffled_document": np.full(n, 3.0), "decoder_alone": np.full(n, np.inf)}
    nats["own"][1] = np.inf
    stated = verdict(judge(references, references, documents, SETTINGS, 0, likelihoods=nats, alone="A text."))
    assert stated.count("Likelihoods of references are not finite, so they are not compared.") == 2
    assert "nan" not in stated
    assert "inf" not in stated
    assert "It reads its document: +" in stated
    few = {name: values[:4] for name, values in nats.items()}
    stated = verdict(
        judge(references[:4], references[:4], documents[:4], SETTINGS, 0, likelihoods=few, alone="A text.")
    )
    assert stated.count("Likelihoods of references are not finite, so they are not compared.") == 2


@pytest.mark.parametrize("n", [1, 2, 9, 10])
def test_few_examples_give_no_verdict(references, documents, n):
    judgement = judge(references[:n], references[:n], documents[:n], SETTINGS, 0, alone="A text.")
    stated = statements(judgement.metrics, judgement.baselines, judgement.controls)
    if n == 10:
        assert any(sentence.startswith("It beats lead1: +") for sentence in stated)
        return
    difference = f"{judgement.baselines['lead1']['rouge1_difference']:+.2f} ROUGE-1."
    count = "1 example is" if n == 1 else f"{n} examples are"
    assert f"{count} too few to tell whether it beats lead1, 10 are needed: {difference}" in stated
    assert any(f"{count} too few to tell whether the source counts" in sentence for sentence in stated)
    assert any("whether it reads its document" in sentence for sentence in stated) == (n > 1)
    assert all("too few" in sentence for sentence in stated)
    shown = Console(file=io.StringIO(), width=80)
    shown.print(score_table(judgement, "model"))
    assert ("[" in shown.file.getvalue()) == (n > 1)
    assert "nan" not in shown.file.getvalue()


def test_the_likelihoods_of_a_smaller_control_use_its_examples(references):
    n = len(references)
    nats = {"own": np.arange(n) ** 2.0, "shuffled_document": np.arange(n) ** 3.0, "decoder_alone": np.arange(n) ** 0.5}
    chosen = EvaluationSettings(bootstrap_samples=50, control_samples=3)
    judgement = judge(references, references, references, chosen, 0, likelihoods=nats, alone="A text.")
    control = judgement.controls["shuffled_document"]
    rows = np.sort(np.random.default_rng(0).choice(n, 3, replace=False))
    assert control["examples"] == 3
    assert control["nll"] == pytest.approx((rows**3.0).mean())
    assert control["nll_difference"] == pytest.approx((rows**2.0 - rows**3.0).mean())
    assert judgement.metrics["test/nll"] == pytest.approx(nats["own"].mean())
    assert judgement.controls["decoder_alone"]["nll"] == pytest.approx(nats["decoder_alone"].mean())


def test_empty_summaries_are_stated():
    assert statements({"test/empty_fraction": 0.25}, {}, {}) == ["25.0% of its summaries are empty."]


def test_metrics_include_means_intervals_and_text_statistics(judged, references):
    judgement = judged(references)
    for kind in KINDS:
        low, high = judgement.metrics[f"test/{kind}_ci"]
        assert low <= judgement.metrics[f"test/{kind}"] == judgement.per_example[kind].mean() <= high
    words = np.mean([len(text.split()) for text in references])
    assert judgement.metrics["test/words"] == judgement.metrics["test/reference_words"] == pytest.approx(words)
    assert judgement.metrics["test/distinct_fraction"] == len(set(references)) / len(references)
    assert judgement.metrics["test/examples"] == len(references)
    for row in (judgement.baselines["lead1"], judgement.controls["shuffled_document"]):
        assert row["rouge2_difference"] == pytest.approx(judgement.metrics["test/rouge2"] - row["rouge2"])
        assert row["rouge2_difference_ci"][0] <= row["rouge2_difference"] <= row["rouge2_difference_ci"][1]


def test_the_control_can_be_smaller_or_disabled(judged, references):
    assert judged(references, control_samples=4).controls["shuffled_document"]["examples"] == 4
    assert judged(references, control_samples=0).controls == {}
    assert judge(["A."], ["A."], ["A. B."], SETTINGS, 0).controls == {}  # no other document


def test_the_same_seed_gives_the_same_judgement(judged, documents):
    assert judged(lead(documents, 2)).controls == judged(lead(documents, 2)).controls


def test_novel_bigrams_ignore_case_and_punctuation():
    assert novel_bigram_fraction(["The river rose."], ["Yesterday the river, rose again"]) == 0.0
    assert novel_bigram_fraction(["The river fell."], ["the river rose"]) == 0.5
    assert novel_bigram_fraction(["", "Word"], ["a b", "a b"]) == 0.0


def test_every_chosen_baseline_is_compared_with_the_model(references, documents):
    training = [Example("0", documents[0], references[0]), Example("1", "Other text.", "Other target.")]
    chosen = {"baselines": BASELINES, "training": training}
    judgement = judge(references, references, documents, SETTINGS, 0, **chosen)
    assert list(judgement.baselines) == ["lead1", "lead3", "copula", "nearest", "most_frequent", "source", "oracle"]
    plain = judge(references, references, documents, SETTINGS, 0)
    assert list(plain.baselines) == ["lead1", "lead3"]
    assert plain.texts == {}
    for name in plain.baselines:
        assert judgement.baselines[name] == plain.baselines[name]
    for name, row in judgement.baselines.items():
        low, high = row["rouge1_difference_ci"]
        assert low <= row["rouge1_difference"] <= high
        assert row["rouge1"] == judgement.per_example[f"{name}/rouge1"].mean()
        assert row.get("training_examples") == (2 if name in ("nearest", "most_frequent") else None)
    assert judgement.per_example["nearest/rouge1"][0] == 100  # its own document is a training document
    assert judgement.texts.keys() == {"nearest", "most_frequent", "oracle"}
    assert judgement.texts["most_frequent"] == [references[0]] * len(references)
    said = verdict(judgement)
    for rival in ("the copula rule", "the nearest training text", "the most frequent target", "the copied source"):
        assert f"It beats {rival}: +" in said
    assert "oracle" not in said  # an upper bound
    out = io.StringIO()
    Console(file=out, width=80).print(score_table(judgement, "minilm x minilm"))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    for name in ("copula", "nearest", "frequent", "copied", "oracle"):
        assert name in out.getvalue()
    assert "…" not in out.getvalue()


def test_a_worse_result_names_what_would_score_better():
    rows = dict.fromkeys(("lead1", "copula", "nearest", "most_frequent", "source"), rival(-3.0, -4.0, -2.0))
    said = statements({}, rows, {})
    assert said[1] == "It does not beat the copula rule: -3.00 ROUGE-1 [-4.00, -2.00]. This rule would score better."
    endings = ("first sentences", "rule", "training text", "for all", "the source")
    assert all(f"{end} would score better." in one for one, end in zip(said, endings, strict=True))
    (few,) = statements({"test/examples": 3}, {"copula": rival(1.0, 0.0, 2.0)}, {})
    assert "whether it beats the copula rule" in few


def test_an_empty_test_split_is_refused():
    with pytest.raises(UserError, match="no examples"):
        judge([], [], [], SETTINGS, 0)
    with pytest.raises(ValueError, match="2 documents"):
        judge(["a"], ["a"], ["a", "b"], SETTINGS, 0)


def test_the_table_fits_eighty_columns_with_every_interval(judged, documents):
    judgement = judged(lead(documents, 2))
    out = io.StringIO()
    Console(file=out, width=80).print(score_table(judgement, "minilm [x] bert"))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for name in ("minilm [x] bert", "lead1", "lead3", "another document", "ROUGE-Lsum"):
        assert name in text
    for row in (judgement.baselines["lead1"], judgement.controls["shuffled_document"]):
        for kind in KINDS:
            assert "[{:.1f}, {:.1f}]".format(*row[f"{kind}_ci"]) in text
    assert "…" not in text


def test_a_judgement_by_other_metrics(documents, references):
    settings = EvaluationSettings(bootstrap_samples=50, metrics=["ter", "chrf", "rouge", "fragments"])
    judgement = judge(references, references, documents, settings, 0, alone="A text.")
    assert [text.partition("|")[0] for text in judgement.signatures] == ["ter", "chrf", "rouge", "fragments"]
    assert judgement.metrics["test/ter"] == 0.0
    assert judgement.metrics["test/chrf"] == pytest.approx(100.0)
    lead1, shuffled = judgement.baselines["lead1"], judgement.controls["shuffled_document"]
    for row in (lead1, shuffled, judgement.controls["decoder_alone"]):
        low, high = row["ter_difference_ci"]
        assert low <= row["ter_difference"] <= high < 0  # fewer edits
    assert "chrf" not in judgement.per_example
    assert "coverage" in judgement.per_example
    stated = verdict(judgement)
    assert f"It beats lead1: {lead1['ter_difference']:+.2f} TER [" in stated
    assert "It reads its document: -" in stated
    out = io.StringIO()
    Console(file=out, width=80).print(score_table(judgement, "minilm x bert"))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for part in ("TER", "chrF2", "ROUGE-Lsum", "density", "tok:rouge-score", "stem:porter", "nc:6"):
        assert part in text
    assert "Scores on" in text


def test_an_undefined_precision_is_a_dash_and_no_verdict(references, documents):
    settings = EvaluationSettings(bootstrap_samples=20, metrics=["entity_precision"])
    judgement = judge(["no names here"] * len(references), references, documents, settings, 0)
    stated = verdict(judgement)
    assert "Against lead1, entity precision is not defined." in stated
    assert "nan" not in stated
    out = io.StringIO()
    Console(file=out, width=80).print(score_table(judgement, "m"))
    assert "nan" not in out.getvalue()


def test_a_judgement_of_the_validation_split_is_named_so_everywhere(references, documents):
    judgement = judge(references[:12], references[:12], documents[:12], EvaluationSettings(), 1, split="validation")
    assert {name.partition("/")[0] for name in judgement.metrics} == {"validation"}
    out = io.StringIO()
    Console(file=out, width=80).print(score_table(judgement, "m"))
    assert "on 12 validation examples" in out.getvalue()
    tested = judge(references[:12], references[:12], documents[:12], EvaluationSettings(), 1)
    assert verdict(judgement) == verdict(tested)
    both = tested.metrics | {"validation/rouge1": 1.0}  # of an evaluation that keeps the validation scores of the fit
    assert split_of(both) == "test"
    assert scores_of_split(both) == {name.removeprefix("test/"): value for name, value in tested.metrics.items()}
    with pytest.raises(UserError, match=r"The validation split has no examples.*data\.limit_validation"):
        judge([], [], [], EvaluationSettings(), 1, split="validation")
