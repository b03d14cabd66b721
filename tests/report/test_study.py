"""Planned contrasts over seeds and examples, and the page that is rebuilt from the stored scores."""

import json
import re
from dataclasses import replace
from enum import Enum
from functools import reduce
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

from warmstart.errors import UserError
from warmstart.evaluation.paired_tests import equivalence_t_p
from warmstart.report.collect import collect
from warmstart.report.study import Plan, cells_of, contrasts_of, in_order, read_plan, stored_results, with_borrowed
from warmstart.report.study_page import END, START, main, plot, rebuilt
from warmstart.runs.identity import config_hash

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
CONF = Path(__file__).parents[2] / "conf"
PLAN = Plan(
    factors={"weights": "encoder.weights"},
    measures={"nll": "nats per token", "rouge1": "ROUGE-1"},
    contrasts=[{"name": "warm against cold", "of": {"weights": "warm"}, "against": {"weights": "cold"}}],
    lines=["weights"],
    runs=6,
)


def stored(seeds=(1, 2, 3), advantage=0.5, n=40, each=({},)):
    rng = np.random.default_rng(0)
    base = rng.normal(3.0, 1.0, n)
    rows = []
    for also in each:
        for weights in ("warm", "cold"):
            for seed in seeds:
                nll = base - (advantage if weights == "warm" else 0.0) + rng.normal(0, 0.05, n)
                examples = {"nll": nll.tolist(), "rouge1": (10 * base).tolist()}
                rows.append(
                    {"factors": {"weights": weights} | also, "seed": seed, "seconds": 60.0, "examples": examples}
                )
    return {"versions": {"torch": "2.13.0"}, "examples": n, "runs": rows}


def test_a_contrast_is_the_paired_difference_over_seeds_and_examples():
    (contrast,) = contrasts_of(PLAN, cells_of(stored()))
    mean, low, high = contrast.differences["nll"]
    assert mean == pytest.approx(-0.5, abs=0.03)
    assert low < mean < high < -0.4
    assert contrast.differences["rouge1"] == (0.0, 0.0, 0.0)
    assert contrast.p == contrast.corrected < 0.001
    assert contrast.seeds == 3


def test_the_first_measure_decides_and_holm_counts_every_value_of_each():
    plan = Plan(**{**vars(PLAN), "contrasts": [{**PLAN.contrasts[0], "each": "pairs"}]})
    cells = cells_of(stored(each=({"pairs": "400"}, {"pairs": "100"}, {"pairs": "None"}), advantage=0.012))
    found = contrasts_of(plan, cells)
    assert [one.name for one in found] == [f"warm against cold, pairs {n}" for n in ("100", "400", "all")]
    smallest = min(found, key=lambda one: one.p)
    assert smallest.corrected == pytest.approx(min(1.0, 3 * smallest.p))


def test_two_seeds_are_no_contrast():
    assert contrasts_of(PLAN, cells_of(stored(seeds=(1, 2)))) == []


@pytest.mark.parametrize(("margin", "equal"), [(0.6, True), (0.4, False)])
def test_a_margin_tests_for_equality(margin, equal):
    plan = Plan(**{**vars(PLAN), "margin": margin})
    (contrast,) = contrasts_of(plan, cells_of(stored()))
    assert (contrast.p < 0.05) == equal


def test_a_yes_or_no_has_mcnemars_test_in_each_seed():
    plan = Plan(**{**vars(PLAN), "measures": {"new_number": "new number (%)"}})
    given = stored()
    for row in given["runs"]:
        row["examples"] = {"new_number": [int(row["factors"]["weights"] == "cold")] * 8 + [0] * 32}
    (contrast,) = contrasts_of(plan, cells_of(given))
    assert contrast.mcnemar == pytest.approx([2 / 2**8] * 3)
    assert contrast.of_seeds == pytest.approx([-0.2] * 3)
    assert "| -20.0 [" in rebuilt(f"{START}{END}", plan, given)


def test_equality_needs_the_t_test_over_seeds_too():
    plan = Plan(**{**vars(PLAN), "margin": 0.5})
    given = stored(advantage=0.0, n=400)
    for row, shift in zip(given["runs"], (0.0, 0.0, 0.3, 0, 0, 0), strict=True):  # of the warm seeds
        row["examples"]["nll"] = [value + shift for value in row["examples"]["nll"]]
    (contrast,) = contrasts_of(plan, cells_of(given))
    assert contrast.p == equivalence_t_p(np.array(contrast.of_seeds), 0.5)
    assert 0.02 < contrast.p < 0.04  # the bootstrap alone has 0.0001: no resample is outside


def test_runs_that_differ_in_more_than_the_factors_are_refused():
    given = stored()
    for row in given["runs"]:
        row["options"] = {"encoder.weights": row["factors"]["weights"], "optim.new_rate": "0.002"}
    assert contrasts_of(PLAN, cells_of(given))
    given["runs"][2]["options"] = {"encoder.weights": "warm"}
    with pytest.raises(UserError, match=r"seeds 1 and 3 differ in .optim.new_rate., which the plan does not compare"):
        cells_of(given)
    for row in given["runs"][:3]:
        row["options"] = {"encoder.weights": "warm"}
    with pytest.raises(UserError, match=r"warm against cold also differ in .optim.new_rate."):
        contrasts_of(PLAN, cells_of(given))
    of_experiments = Plan(**{**vars(PLAN), "factors": {"weights": "experiment"}})
    assert contrasts_of(of_experiments, cells_of(given))
    for row in given["runs"][:3]:
        row["options"] = {"decoder.path": "another"}
    with pytest.raises(UserError, match=r"cannot be compared in nll: .*the same decoder tokenizer"):
        contrasts_of(of_experiments, cells_of(given))
    of_rouge = Plan(**{**vars(of_experiments), "measures": {"rouge1": "ROUGE-1"}})
    assert contrasts_of(of_rouge, cells_of(given))


def test_each_seed_may_start_from_a_run_of_its_own():
    given = stored()
    for row in given["runs"]:
        row["options"] = {"ckpt_weights": f"runs/adapted-{row['seed']}"}
    assert cells_of(given)
    for row in given["runs"]:
        row["options"] = {"ckpt_weights": "runs/adapted-1"}
    assert cells_of(given)
    given["runs"][1]["options"] = {"ckpt_weights": "runs/other-2"}
    with pytest.raises(UserError, match=r"seeds 1 and 2 differ in .ckpt_weights."):
        cells_of(given)


@pytest.mark.parametrize("factor", ["optim.distill", "encoder.name"])
def test_an_option_whose_name_begins_like_a_factor_is_none(factor):
    plan = Plan(**{**vars(PLAN), "factors": {"weights": factor}, "measures": {"rouge1": "ROUGE-1"}})
    given = stored()
    for row in given["runs"]:
        row["options"] = {factor: row["factors"]["weights"]}
        if row["factors"]["weights"] == "warm":
            row["options"] |= {"encoder.path": "a"} if factor == "encoder.name" else {"optim.distill_weight": "0.9"}
    if factor == "encoder.name":  # the name of a config stands for all of its options
        assert contrasts_of(plan, cells_of(given))
        return
    with pytest.raises(UserError, match=r"warm against cold also differ in .optim.distill_weight."):
        contrasts_of(plan, cells_of(given))


def test_one_setting_with_a_seed_twice_is_refused():
    with pytest.raises(UserError, match=r"Seed 1 of .* is there twice"):
        cells_of(stored(seeds=(1, 1, 2)))


def test_runs_become_stored_scores(write_run, tmp_path):
    for seed in (1, 2, 3):
        write_run(f"a{seed}", seed=seed, scores=(10.0, 20.0))
    plan = Plan(**{**vars(PLAN), "measures": {"rouge1": "ROUGE-1"}})
    found = stored_results(plan, collect([tmp_path]))
    assert [row["seed"] for row in found["runs"]] == [1, 2, 3]
    assert found["runs"][0]["factors"] == {"weights": "pretrained"}
    assert found["runs"][0]["examples"] == {"rouge1": [10.0, 20.0]}
    options = found["runs"][0]["options"]
    assert {"encoder.path": "hub/bert", "decoder.name": "gpt2"}.items() <= options.items()
    assert not {"encoder.weights", "seed"} & options.keys()  # at its default, and no option of a setting


def test_a_factor_can_be_the_experiment_of_a_run(write_run, tmp_path):
    write_run("a", scores=(10.0, 20.0), result={"overrides": ["seed=1", "experiment=studies/adaptation/adapted"]})
    plan = Plan(**{**vars(PLAN), "factors": {"start": "experiment"}, "measures": {"rouge1": "ROUGE-1"}})
    assert stored_results(plan, collect([tmp_path]))["runs"][0]["factors"] == {"start": "adapted"}
    plan.factors = {"start": "sweep"}
    with pytest.raises(UserError, match=r"compares sweep, which .*a does not set"):
        stored_results(plan, collect([tmp_path]))


def test_a_score_that_no_example_has_is_named(write_run, tmp_path):
    write_run("a", scores=(10.0, 20.0))
    plan = Plan(**{**vars(PLAN), "measures": {"bleu": "BLEU"}})
    with pytest.raises(UserError, match="needs bleu of each example"):
        stored_results(plan, collect([tmp_path]))


def test_an_output_without_text_is_empty(write_run, tmp_path):
    write_run("a", scores=(10.0, 20.0))
    runs = collect([tmp_path])
    next(iter(runs[0].examples.values()))["prediction"] = " "
    plan = Plan(**{**vars(PLAN), "measures": {"empty": "empty (%)"}})
    assert sorted(stored_results(plan, runs)["runs"][0]["examples"]["empty"]) == [0.0, 1.0]


def test_a_contrast_of_settings_that_a_finished_study_lacks_is_refused():
    plan = Plan(
        **{**vars(PLAN), "contrasts": [{"name": "x", "of": {"weights": "hot"}, "against": {"weights": "cold"}}]}
    )
    with pytest.raises(UserError, match="no two settings are those of the contrast x"):
        contrasts_of(plan, cells_of(stored()))


def test_runs_of_other_test_examples_are_refused(write_run, tmp_path):
    write_run("a", scores=(10.0, 20.0))
    write_run("b", seed=2, scores=(10.0, 20.0, 30.0))
    with pytest.raises(UserError, match="was tested on other examples"):
        stored_results(Plan(**{**vars(PLAN), "measures": {"rouge1": "ROUGE-1"}}), collect([tmp_path]))


def test_stored_runs_of_another_machine_are_kept_and_equal_ones_replaced(write_run, tmp_path):
    plan = Plan(**{**vars(PLAN), "measures": {"rouge1": "ROUGE-1"}})
    for seed in (1, 2):
        write_run(f"first/{seed}", seed=seed, scores=(10.0, 20.0))
    before = stored_results(plan, collect([tmp_path / "sweep" / "first"]))
    for seed in (2, 3):
        write_run(f"second/{seed}", seed=seed, scores=(11.0, 21.0))
    runs = collect([tmp_path / "sweep" / "second"])
    found = stored_results(plan, runs, before)
    assert [(row["seed"], row["examples"]["rouge1"][0]) for row in found["runs"]] == [(1, 10.0), (2, 11.0), (3, 11.0)]
    with pytest.raises(UserError, match="tested on different examples"):
        stored_results(plan, runs, before | {"examples_hash": "0"})


def test_runs_of_another_study_with_the_same_settings_are_borrowed(tmp_path):
    plan = Plan(
        **{**vars(PLAN), "borrowed": {"study": "other", "of": {"pairs": 100}, "as": {"weights": "cold"}}},
    )
    given = stored() | {"examples_hash": "1"}
    own = [row for row in given["runs"] if row["factors"]["weights"] == "warm" or row["seed"] == 1]
    rows = [row | {"factors": {"pairs": "100"}, "seconds": 120.0} for row in given["runs"][3:]]
    (tmp_path / "other.json").write_text(json.dumps(given | {"runs": rows}))
    found = with_borrowed(plan, given | {"runs": own}, tmp_path)
    assert [row["seed"] for row in found["runs"] if "borrowed" in row] == [2, 3]
    assert contrasts_of(plan, cells_of(found))[0].differences == contrasts_of(plan, cells_of(given))[0].differences
    assert "2 of the runs are those of [another study](other.md)" in rebuilt(f"{START}{END}", plan, found)
    with pytest.raises(UserError, match="tested on different examples"):
        with_borrowed(plan, given | {"runs": own, "examples_hash": "2"}, tmp_path)
    plan.borrowed["of"] = {"pairs": 400}
    with pytest.raises(UserError, match="but there are none"):
        with_borrowed(plan, given, tmp_path)


def test_only_the_results_of_a_page_are_replaced():
    once = rebuilt(f"# Title\n\n{START}\nbefore\n{END}\n\nEnd.\n", PLAN, stored())
    state = "6 runs, 40 test examples, 0.1 hours of training in all (torch 2.13.0)."
    assert once.startswith(f"# Title\n\n{START}\n\n{state}\n\n| weights | seeds |")
    assert once.endswith(f"{END}\n\nEnd.\n")
    assert "before" not in once
    assert "Not finished" not in once
    assert rebuilt(once, PLAN, stored()) == once
    with pytest.raises(UserError, match="needs the lines"):
        rebuilt("# Title", PLAN, stored())


def test_a_part_of_the_runs_is_called_that():
    assert "**Not finished: 6 runs are planned.**" in rebuilt(f"{START}{END}", PLAN, stored(seeds=(1, 2)))


def test_the_plot_is_the_same_file_each_time(tmp_path):
    cells = cells_of(stored())
    for name in ("a.svg", "b.svg"):
        plot(PLAN, cells, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert ">warm<" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("x", [None, "pairs"])
def test_each_setting_is_named_once_in_the_plot(x, tmp_path):
    cells = cells_of(stored(each=({"pairs": "100"},)))
    plot(Plan(**{**vars(PLAN), "x": x}), cells, tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    name = ">weights {}<" if x else ">{}<"  # without a horizontal axis the factor is on a line above its value
    assert [drawn.count(name.format(weights)) for weights in ("cold", "warm")] == [1, 1]
    assert drawn.count(">weights<") == (2 if x is None else 0)
    assert drawn.count(">pairs<") == drawn.count('id="legend_1"') == (x is not None)
    assert drawn.count('id="xtick_') == (2 if x is None else 1)


def test_the_plot_shows_a_yes_or_no_in_percent(tmp_path):
    rows = stored(n=4)
    for row in rows["runs"]:
        row["examples"] = {"empty": [1, 1, 1, 0] if row["factors"]["weights"] == "warm" else [1, 0, 0, 0]}
    plot(Plan(**{**vars(PLAN), "measures": {"empty": "empty output (%)"}}), cells_of(rows), tmp_path / "a.svg")
    assert {">30<", ">70<"} <= set(re.findall(">[0-9.]+<", (tmp_path / "a.svg").read_text()))


def test_a_limit_of_null_comes_last():
    assert sorted(["None", "1600", "400"], key=in_order) == ["400", "1600", "None"]


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_plan_has_the_settings_of_its_sweep_and_each_contrast_compares_two_of_them(path, settings_of):
    plan, sweep = read_plan(path), CONF / "sweep" / "studies" / path.name
    params = yaml.safe_load(sweep.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    seeds = str(params.pop("seed")).split(",")
    cells, borrowed = [], {key: str(value) for key, value in plan.borrowed.get("as", {}).items()}
    hashes = {}
    for values in product(*(str(one).split(",") for one in params.values())):
        words = dict(zip(params, values, strict=True))
        settings = settings_of(*(f"{key}={value}" for key, value in words.items()))
        cells.append({name: factor_value(words, settings, key) for name, key in plan.factors.items()})
        if settings.ckpt_weights is not None:  # the hash depends on where the checkpoint is
            continue
        of_seeds = {int(seed): config_hash(replace(settings, seed=int(seed))) for seed in seeds}
        hashes[json.dumps(cells[-1], sort_keys=True)] = of_seeds
    scores = path.with_suffix(".json")
    for row in json.loads(scores.read_text())["runs"] if scores.exists() else []:  # a plan is there before its runs
        of_seeds = hashes.get(json.dumps(row["factors"], sort_keys=True))
        assert of_seeds is None or row["config_hash"] == of_seeds[row["seed"]]
    if borrowed:
        other = json.loads((STUDIES / f"{plan.borrowed['study']}.json").read_text())["runs"]
        same = [row for row in other if row["factors"] == plan.borrowed["of"]]
        assert {row["seed"]: row["config_hash"] for row in same} == hashes[json.dumps(borrowed, sort_keys=True)]
    assert plan.runs == len(seeds) * len(cells)
    for contrast in plan.contrasts:
        each = contrast.get("each")
        for value in sorted({cell[each] for cell in cells}) if each else [None]:
            for side in ("of", "against"):
                wanted = {key: str(one) for key, one in contrast[side].items()} | ({each: value} if each else {})
                assert len([cell for cell in cells if wanted.items() <= cell.items()]) == 1, (contrast, wanted)


def factor_value(words, settings, key):
    if key == "experiment":
        return words[key].rpartition("/")[2]
    value = reduce(getattr, key.split("."), settings)
    return str(value.value if isinstance(value, Enum) else value)


def test_a_wrong_plan_is_explained(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_plan(tmp_path / "none.yaml")
    (tmp_path / "wrong.yaml").write_text("questions: 1\n")
    with pytest.raises(UserError, match="is not the plan of a study"):
        read_plan(tmp_path / "wrong.yaml")


def test_a_study_without_scores_is_explained(tmp_path):
    (tmp_path / "study.yaml").write_bytes((STUDIES / "warm_start.yaml").read_bytes())
    with pytest.raises(UserError, match=r"study\.json does not exist: the study has no scores yet"):
        main([str(tmp_path / "study.yaml")])


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.json")), ids=lambda path: path.stem)
def test_each_page_is_what_its_committed_scores_say(path, tmp_path):
    for suffix in (".json", ".yaml", ".md"):
        (tmp_path / f"study{suffix}").write_bytes(path.with_suffix(suffix).read_bytes())
    if study := read_plan(path.with_suffix(".yaml")).borrowed.get("study"):
        (tmp_path / f"{study}.json").write_bytes((STUDIES / f"{study}.json").read_bytes())
    main([str(tmp_path / "study.yaml")])
    assert (tmp_path / "study.md").read_text() == path.with_suffix(".md").read_text()
    assert json.loads(path.read_text())["runs"]
