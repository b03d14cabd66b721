"""Rows are configurations, compared by a paired bootstrap over their common examples."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from warmstart.evaluation.paired_tests import holm, paired_t_p
from warmstart.report.collect import Run, collect
from warmstart.report.compare import RESAMPLES, SEED, Ranking, Row, baseline_row, interval, ranked_by, rows_of
from warmstart.report.differences import differences


def test_seeds_form_one_row_and_a_single_seed_has_no_deviation(write_run, tmp_path):
    write_run("a", seed=1, scores=(10.0, 20.0))
    write_run("b", seed=2, scores=(20.0, 40.0))
    write_run("c", seed=1, encoder="roberta", scores=(1.0, 2.0))
    write_run("d", seed=1, weights="random", scores=(0.0, 1.0))
    first, second, third = rows_of(collect([tmp_path]))
    assert first.label == "encoder=bert encoder.weights=pretrained"
    assert [run.seed for run in first.runs] == ["1", "2"]
    path = ("metrics", "test/rouge1")
    assert first.mean(*path) == 22.5
    assert first.deviation(*path) == pytest.approx(np.std([15.0, 30.0], ddof=1))
    assert first.scores("rouge1") == {"0": 15.0, "1": 30.0}
    assert second.label == "encoder=roberta encoder.weights=pretrained"
    assert second.deviation(*path) is None
    assert third.encoder == "bert, untrained"


def test_a_difference_is_the_paired_bootstrap_of_common_examples(write_run, tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 50, 40), rng.uniform(0, 50, 30)
    write_run("a", scores=tuple(a))
    write_run("b", encoder="roberta", scores=tuple(b))
    rows = rows_of(collect([tmp_path]))
    (found,) = differences(rows)
    assert found.examples == 30
    sign = 1 if rows[0].runs[0].folder.name == "a" else -1
    difference = sign * (a[:30] - b)
    mean, low, high = found.scores["rouge1"]
    assert mean == pytest.approx(difference.mean())
    # Ids are sorted as text; the same resamples of the same order give the same ends.
    ordered = difference[np.argsort([str(i) for i in range(30)])]
    drawn = np.random.default_rng(SEED).integers(0, 30, (RESAMPLES, 30))
    assert (low, high) == pytest.approx(np.percentile(ordered[drawn].mean(axis=1), (2.5, 97.5)))
    assert interval(rows[0], "rouge1") is not None
    assert interval(rows[0], "nll") is None


def test_examples_of_two_test_sets_are_no_pair_because_their_ids_are_the_same(write_run, tmp_path):
    write_run("a", scores=(1.0, 2.0), text="a b")
    write_run("b", encoder="roberta", scores=(3.0, 4.0), text="c d")
    assert differences(rows_of(collect([tmp_path]))) == []


def test_a_baseline_is_paired_with_a_row_example_by_example(write_run, tmp_path):
    write_run("a", scores=(10.0, 30.0), text="a b", lead=50.0)
    rows = rows_of(collect([tmp_path]))
    rival = baseline_row(rows[0], "lead1", "lead1 (baseline)", 9)
    # The first sentence is "a b one." and the reference "a b": F1 is 2 * 2 / (3 + 2).
    assert rival.scores("rouge1") == pytest.approx({"0": 80.0, "1": 80.0})
    (found,) = differences([*rows, rival])
    assert found.scores["rouge1"][0] == pytest.approx(20.0 - 80.0)
    assert "nll" not in found.scores

    # The run's own scores are used, and only the texts that are shown are split again.
    file = rows[0].runs[0].folder / "predictions.jsonl"
    own = [json.loads(line) | {"lead1/rouge1": 81.5 + i} for i, line in enumerate(file.read_text().splitlines())]
    file.write_text("".join(json.dumps(row) + "\n" for row in own))
    rival = baseline_row(rows_of(collect([tmp_path]))[0], "lead1", "lead1 (baseline)", 1)
    assert rival.scores("rouge1") == {"0": 81.5, "1": 82.5}
    assert [row.get("prediction") for row in rival.runs[0].examples.values()] == ["a b one.", None]


def test_a_baseline_from_training_examples_has_the_texts_and_scores_of_its_run(write_run, tmp_path):
    folder = write_run("a", scores=(10.0, 30.0))
    file = folder / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    stored = [{"baselines": {"nearest": f"text {i}"}, "nearest/rouge1": 20.0 + i} for i in range(2)]
    file.write_text("".join(json.dumps(row | more) + "\n" for row, more in zip(rows, stored, strict=True)))
    (row,) = rows_of(collect([tmp_path]))
    rival = baseline_row(row, "nearest", "nearest (baseline)", 1)
    assert [one.get("prediction") for one in rival.runs[0].examples.values()] == ["text 0", None]
    (found,) = differences([row, rival])
    assert found.scores["rouge1"][0] == pytest.approx(20.0 - 20.5)
    # Texts that another program removed are shown as empty, and no score is made up.
    file.write_text("".join(json.dumps(row | {"baselines": 1}) + "\n" for row in rows))
    (row,) = rows_of(collect([tmp_path]))
    rival = baseline_row(row, "nearest", "nearest (baseline)", 2)
    assert [one["prediction"] for one in rival.runs[0].examples.values()] == ["", ""]
    assert differences([row, rival]) == []


def of(name, sha256):
    return {"checkpoint": {"name": name, "sha256": sha256}}


def test_a_row_has_one_checkpoint_and_names_it_if_it_is_not_the_best(write_run, tmp_path):
    write_run("fit", scores=(10.0, 20.0), nll=(3.0, 3.0))  # an older release, which did not record the checkpoint
    write_run("last", scores=(30.0, 40.0), nll=(2.0, 2.0), result=of("last.ckpt", "b"))
    write_run("other", seed=2, scores=(20.0, 30.0), nll=(3.0, 3.0), result=of("best.ckpt", "c"))
    last, best = rows = rows_of(collect([tmp_path]))
    assert (last.label, best.label) == ("bert x gpt2 checkpoint=last.ckpt", "bert x gpt2")
    assert [run.folder.name for run in best.runs] == ["fit", "other"]
    assert last.deviation("metrics", "test/rouge1") is None
    (found,) = differences(rows)
    assert found.scores["nll"][0] == -1.0  # the same decoder and vocabulary


def test_one_seed_counts_once_by_its_newest_run(write_run, tmp_path):
    write_run("a", seed=1, scores=(10.0, 20.0), finished=1)
    write_run("b", seed=1, scores=(30.0, 40.0), finished=3, result={"seconds": {"test": 2.0}})
    write_run("c", seed=1, scores=(50.0, 60.0), finished=2)
    write_run("d", seed=2, scores=(70.0, 80.0), finished=1)
    (row,) = rows_of(collect([tmp_path]))
    assert [run.folder.name for run in row.runs] == ["b", "d"]
    assert [run.folder.name for run in row.left_out] == ["c", "a"]
    assert row.mean("metrics", "test/rouge1") == 55.0
    assert row.scores("rouge1") == {"0": 50.0, "1": 60.0}
    # The costs of the fit are kept, although the newest run is an evaluation without costs.
    assert row.mean("seconds", "fit") is None
    assert row.of_fit("seconds", "fit") == 15.0
    assert row.of_fit("seconds", "nothing") is None


def test_a_checkpoint_evaluated_with_another_seed_counts_once(write_run, tmp_path):
    write_run("fit", seed=1, finished=1, result=of("best.ckpt", "a"))
    write_run("again", seed=2, finished=2, result=of("best.ckpt", "a"))
    write_run("other", seed=3, finished=2, result=of("best.ckpt", "b"))
    (row,) = rows_of(collect([tmp_path]))
    assert [run.folder.name for run in row.runs] == ["again", "other"]
    assert [run.folder.name for run in row.left_out] == ["fit"]


def validated(best, monitor="validation/loss", mode="min"):
    return {"validation": {"monitor": monitor, "mode": mode, "best": best}}


def test_rows_are_ranked_by_validation_and_not_by_the_test_split(write_run, tmp_path):
    write_run("a", scores=(30.0, 40.0), result=validated(2.5))
    write_run("b", encoder="roberta", scores=(10.0, 20.0), result=validated(2.0))
    write_run("c", encoder="electra", result=validated(1.0) | {"metrics": {}, "baselines": {}, "controls": {}})
    write_run("d", encoder="minilm", scores=(90.0, 90.0))  # has no validation score
    rows = rows_of(collect([tmp_path]))
    assert ranked_by(rows).metric == "validation/loss"
    assert [row.encoder for row in rows] == ["electra", "roberta", "bert", "minilm"]
    assert [row.validation("validation/loss") for row in rows] == [1.0, 2.0, 2.5, None]
    assert rows[0].mean("metrics", "test/rouge1") is None


def test_higher_validation_scores_are_better_except_losses(write_run, tmp_path):
    for name, best in (("a", 10.0), ("b", 30.0)):
        write_run(name, encoder=name, result=validated(best, "validation/rouge2", "max"))
    rows = rows_of(collect([tmp_path]))
    assert ranked_by(rows).metric == "validation/rouge2"
    assert [row.encoder for row in rows] == ["b", "a"]


def on_validation(score, metrics=(), **more):
    scores = {"validation/rouge1": score, "validation/rouge1_ci": [score - 1, score + 1], **dict(metrics)}
    return {"metrics": scores} | more


def test_the_whole_validation_split_ranks_rows_whose_losses_are_not_comparable(write_run, tmp_path):
    write_run("a", decoder="gpt2", result=validated(2.0) | on_validation(11.0))
    write_run("b", decoder="llama", result=validated(3.0) | on_validation(12.0))
    for folder in ("a", "b"):  # of a sample, in the other order
        curve = f"step,validation/loss,validation/rouge1\n1,2.0,{30 if folder == 'a' else 20}\n"
        (tmp_path / "sweep" / folder / "metrics.csv").write_text(curve)
    rows = rows_of(collect([tmp_path]))
    assert ranked_by(rows) == Ranking("validation/rouge1", whole_split=True)
    assert [row.decoder for row in rows] == ["llama", "gpt2"]
    assert ranked_by(rows).score(rows[0]) == 12.0
    write_run("c", decoder="opt", result=validated(2.0))  # an earlier run without it: samples are in all curves
    (tmp_path / "sweep" / "c" / "metrics.csv").write_text("step,validation/loss,validation/rouge1\n1,2.0,25\n")
    rows = rows_of(collect([tmp_path]))
    assert ranked_by(rows) == Ranking("validation/rouge1")
    assert [row.decoder for row in rows] == ["gpt2", "opt", "llama"]


def test_a_fit_that_was_scored_on_validation_and_its_evaluation_are_one_row(write_run, tmp_path):
    write_run("fit", finished=3, result=of("best.ckpt", "a") | validated(2.0) | on_validation(40.0, test_looks=2))
    write_run("evaluate-1", finished=2, scores=(10.0, 30.0), result=of("best.ckpt", "a") | {"test_looks": 1})
    (row,) = rows_of(collect([tmp_path]))
    assert (row.split, row.mean("metrics", "test/rouge1"), row.looks) == ("test", 20.0, 2)
    assert row.of_fit("metrics", "validation/rouge1") == 40.0
    assert row.of_fit("metrics", "validation/rouge1_ci", 1) == 41.0


def test_p_values_are_corrected_for_all_pairs_of_rows(write_run, tmp_path):
    rng = np.random.default_rng(0)
    base = rng.uniform(20, 30, 40)
    scores = {name: base + step + rng.normal(0, 3, 40) for name, step in (("a", 0.0), ("b", 1.5), ("c", 3.0))}
    for name, values in scores.items():
        write_run(name, encoder=name, scores=tuple(values))
    write_run("few", encoder="few", scores=(1.0, 2.0))  # its pairs are too small to be tested
    rows = rows_of(collect([tmp_path]))
    found = {(rows[d.a].encoder, rows[d.b].encoder): d.p.get("rouge1") for d in differences(rows)}
    tested = {pair: p for pair, p in found.items() if p is not None}
    assert sorted(map(sorted, tested)) == [["a", "b"], ["a", "c"], ["b", "c"]]
    raw = {pair: paired_t_p(scores[pair[0]] - scores[pair[1]]) for pair in tested}
    corrected = dict(zip(raw, holm(list(raw.values())), strict=True))
    assert tested == {pair: pytest.approx(p) for pair, p in corrected.items()}
    assert any(raw[pair] < p for pair, p in tested.items())


def test_losses_of_two_vocabularies_do_not_rank_rows_but_validation_rouge_does(write_run, tmp_path):
    for name, decoder, loss, rouge in (("a", "gpt2", 2.0, 11.0), ("b", "llama", 3.0, 12.0)):
        folder = write_run(name, decoder=decoder, result=validated(loss))
        curve = f"step,validation/loss,validation/rouge1\n1,9.0,99.0\n2,{loss},{rouge}\n3,9.0,99.0\n"
        (folder / "metrics.csv").write_text(curve)
    rows = rows_of(collect([tmp_path]))
    assert ranked_by(rows).metric == "validation/rouge1"
    assert [row.decoder for row in rows] == ["llama", "gpt2"]
    assert rows[0].validation("validation/rouge1") == 12.0  # at the best checkpoint, not the maximum of the curve
    for folder in ("a", "b"):
        (tmp_path / "sweep" / folder / "metrics.csv").unlink()
    assert ranked_by(rows_of(collect([tmp_path]))).metric == "test/rouge1"


def test_an_evaluation_of_a_fit_without_a_test_score_joins_its_row(write_run, tmp_path):
    untested = {"metrics": {}, "baselines": {}, "controls": {}}
    write_run("fit", finished=3, result=of("best.ckpt", "a") | validated(2.0) | untested)
    write_run("evaluate-1", finished=2, scores=(10.0, 30.0), result=of("best.ckpt", "a"))
    (row,) = rows_of(collect([tmp_path]))
    assert row.mean("metrics", "test/rouge1") == 20.0  # from the scored run, although the fit is newer
    assert row.validation("validation/loss") == 2.0


def test_a_configuration_is_the_same_with_or_without_a_test_score(write_run, tmp_path):
    folder = write_run("a", result=validated(2.0))
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    for name, test in (("a", True), ("b", False)):
        folder = folder if name == "a" else write_run("b", seed=2, result=validated(3.0))
        here = {"evaluation": {"test": test}, "seed": 1 if test else 2}
        OmegaConf.save(OmegaConf.merge(config, here), folder / ".hydra" / "config.yaml")
    (row,) = rows_of(collect([tmp_path]))
    assert row.validation("validation/loss") == 2.5


def decoded_by(decoder, *, cut=48, **choices):
    recorded = {"decoder.name": decoder, "data.max_target_length": str(cut)} | choices
    example = {"document": "d", "reference": "r", "rouge1": 1.0, "nll": 3.0}
    return Row(decoder, [Run(Path(decoder), "complete", choices=recorded, examples={"0": example, "1": example})])


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        (decoded_by("gpt2"), decoded_by("gpt2"), None),
        (decoded_by("gpt2"), decoded_by("llama"), "decoder"),
        (decoded_by("gpt2"), decoded_by("gpt2", cut=64), "data.max_target_length"),
        # The same name may refer to different models, and two names to the same model.
        (decoded_by("gpt2", **{"decoder.path": "x"}), decoded_by("gpt2", **{"decoder.path": "y"}), "decoder.path"),
        (decoded_by("gpt2", **{"decoder.path": "x"}), decoded_by("mine", **{"decoder.path": "x"}), None),
        (
            decoded_by("gpt2", **{"decoder.path": "x", "decoder.tokenizer": "z"}),
            decoded_by("llama", **{"decoder.path": "y", "decoder.tokenizer": "z"}),
            None,
        ),
        # The tokenizer of an untrained decoder may be trained on the training texts.
        *(
            (
                decoded_by("gpt2", **{"decoder.weights": weights, "data.limit_train": "100"}),
                decoded_by("gpt2", **{"decoder.weights": "random", "data.limit_train": "200"}),
                differ,
            )
            for weights, differ in (("random", "data.limit_train"), ("pretrained", None))
        ),
    ],
)
def test_likelihoods_are_compared_only_with_the_same_tokens(a, b, differ):
    (found,) = differences([a, b])
    assert ("nll" in found.scores) == (differ is None)
    assert "rouge1" in found.scores
    if differ is None:
        assert found.left_out is None
    else:
        assert found.left_out.startswith("nats/token is omitted")
        assert found.left_out.endswith(f"these rows differ in {differ}.")


def test_rows_with_different_tokenizers_are_compared_in_bits_per_byte(write_run, tmp_path):
    write_run("a", scores=(1.0,) * 4, nll=(3.0,) * 4, bits=(1.0, 1.2, 1.1, 1.3))
    write_run("b", scores=(1.0,) * 4, nll=(2.0,) * 4, bits=(1.5, 1.6, None, 1.8), decoder="llama")
    (found,) = differences(rows_of(collect([tmp_path])))
    first, *_ = rows_of(collect([tmp_path]))
    sign = 1 if first.decoder == "gpt2" else -1
    assert "nll" not in found.scores
    assert sign * found.scores["bits_per_byte"][0] == pytest.approx(-(0.5 + 0.4 + 0.5) / 3)
    assert found.left_out.startswith("nats/token is omitted")
    assert found.left_out.endswith("bits/byte is over the 3 references that both tokenizers keep whole.")


def test_rows_with_one_tokenizer_are_compared_in_nats_only(write_run, tmp_path):
    write_run("a", nll=(3.0, 3.0), bits=(1.0, 1.2))
    write_run("b", encoder="roberta", nll=(2.0, 2.0), bits=(1.5, 1.6))
    (found,) = differences(rows_of(collect([tmp_path])))
    assert "nll" in found.scores
    assert "bits_per_byte" not in found.scores


def test_likelihoods_that_are_not_finite_are_omitted_not_zero(write_run, tmp_path):
    write_run("a", scores=(30.0, 40.0), nll=(None, 4.0))
    write_run("b", encoder="roberta", nll=(4.0, 4.1))
    broken, sound = rows = rows_of(collect([tmp_path]))
    assert broken.scores("nll") == {}
    assert interval(broken, "nll") is None
    assert not sound.not_finite("nll")
    (found,) = differences(rows)
    assert "nll" not in found.scores
    assert found.scores["rouge1"][0] == pytest.approx(20.0)
    assert found.left_out == "nats/token is omitted: not all likelihoods of encoder=bert are finite."
    (beside_baseline,) = differences([broken, baseline_row(sound, "lead1", "lead1 (baseline)", 0)])
    assert beside_baseline.left_out is None


def test_one_example_has_no_interval(write_run, tmp_path):
    write_run("a", scores=(30.0,))
    write_run("b", encoder="roberta", scores=(10.0,))
    rows = rows_of(collect([tmp_path]))
    assert interval(rows[0], "rouge1") is None
    (found,) = differences(rows)
    assert found.scores["rouge1"] == (20.0, None, None)


def test_scores_of_other_signatures_are_not_compared(write_run, tmp_path):
    write_run("a", scores=(1.0, 2.0))
    write_run("b", encoder="roberta", scores=(3.0, 5.0))
    runs = collect([tmp_path])
    signed = "rouge|tok:{}|lang:{}"
    for run, code in zip(runs, ("en", "de"), strict=True):
        run.result["signatures"] = [signed.format("rouge-score", code)]
    (found,) = differences(rows_of(runs))
    assert found.scores == {}
    assert "rouge is omitted" in found.left_out
    for run in runs:
        run.result["signatures"] = [signed.format("rouge-score", "en")]
    (found,) = differences(rows_of(runs))
    assert found.left_out is None
    assert abs(found.scores["rouge1"][0]) == 2.5


def test_a_baseline_is_not_scored_by_a_metric_that_its_run_does_not_have(write_run, tmp_path):
    write_run("a", scores=(1.0, 2.0), text="a b")
    (run,) = collect([tmp_path])
    run.result["signatures"] = ["bleu|lang:en"]
    assert not any(
        "rouge1" in one for one in baseline_row(rows_of([run])[0], "lead1", "lead1", 9).runs[0].examples.values()
    )


def test_a_run_without_newer_options_is_in_the_row_of_those_with_their_defaults(write_run, tmp_path):
    write_run("a", seed=1)
    write_run("b", seed=2)
    runs = collect([tmp_path])
    runs[1].choices |= {"data.language": "en", "data.delimiter": "None"}
    (row,) = rows_of(runs)
    assert len(row.runs) == 2
    runs[1].choices["data.language"] = "de"
    assert [row.label for row in rows_of(runs)] == ["data.language=en", "data.language=de"]


def test_named_runs_keep_their_names(write_run, tmp_path):
    write_run("a", named="demo")
    write_run("b", encoder="roberta", named="again")
    write_run("c", encoder="roberta", seed=2, named="twice")
    write_run("d", encoder="electra")
    write_run("e", encoder="minilm", named="demo")
    names = {row.encoder: row.label for row in rows_of(collect([tmp_path]))}
    assert names == {
        "bert": "demo (encoder=bert)",  # two runs of one name are told apart
        "roberta": "again, twice",
        "electra": "encoder=electra",
        "minilm": "demo (encoder=minilm)",
    }


def test_jobs_of_a_sweep_are_not_named_as_the_sweep(write_run, tmp_path):
    write_run("a", named="sweep")
    write_run("b", encoder="roberta", named="sweep")
    (tmp_path / "sweep" / "multirun.yaml").write_text("hydra: {}\n")
    assert {row.label for row in rows_of(collect([tmp_path]))} == {"encoder=bert", "encoder=roberta"}


def test_no_encoder_is_not_an_untrained_one(write_run, tmp_path):
    write_run("a", encoder="none", weights="random")
    (run,) = collect([tmp_path])
    run.choices["encoder.model_type"] = "none"
    assert rows_of([run])[0].encoder == "none"
