"""What a run leaves for others: whole files or none, JSON that every reader takes, a card that says it all."""

import json
import shlex

import numpy as np
import pytest

from warmstart.config.evaluation import EvaluationSettings
from warmstart.data.sources.base import Example
from warmstart.errors import UserError
from warmstart.evaluation.judgement import judge
from warmstart.runs.model_card import Use, model_card
from warmstart.runs.run_dir import RunDir

USE = Use(transformers_opens=True, max_source_length=512)


def refuse(word):
    raise ValueError(word)


def test_results_are_whole_or_absent(tmp_path):
    RunDir(tmp_path).write_result({"status": "complete"})
    assert RunDir(tmp_path).read_result() == {"status": "complete"}
    with pytest.raises(TypeError):
        RunDir(tmp_path).write_result({"status": object()})
    assert RunDir(tmp_path).read_result() == {"status": "complete"}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_what_is_no_number_becomes_null(tmp_path):
    RunDir(tmp_path).write_result({"metrics": {"a": float("nan"), "b": [1.0, float("inf")]}})
    text = (tmp_path / "result.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {"metrics": {"a": None, "b": [1.0, None]}}


def test_a_result_that_is_missing_or_damaged_is_said(tmp_path):
    with pytest.raises(UserError, match="did not finish"):
        RunDir(tmp_path).read_result()
    with pytest.raises(UserError, match="there is no such folder"):
        RunDir(tmp_path / "misspelled").read_result()
    (tmp_path / "result.json").write_text('{"status": ')
    with pytest.raises(UserError, match="damaged"):
        RunDir(tmp_path).read_result()


def test_of_results_set_aside_the_last_complete_one_stays(tmp_path):
    RunDir(tmp_path).set_result_aside()
    for result in ({"status": "complete", "seed": 1}, {"status": "failed"}, {"status": "failed"}):
        RunDir(tmp_path).write_result(result)
        RunDir(tmp_path).set_result_aside()
    (tmp_path / "result.json").write_text("{")
    RunDir(tmp_path).set_result_aside()
    assert [path.name for path in tmp_path.iterdir()] == ["result.previous.json"]
    assert json.loads((tmp_path / "result.previous.json").read_text())["seed"] == 1


def test_predictions_are_one_object_a_line_in_any_script(tmp_path):
    rows = [{"id": "1", "prediction": "Größe 日本\nzwei Zeilen", "rouge1": 1.5}, {"id": "2", "prediction": "\ud800"}]
    RunDir(tmp_path).write_predictions(iter(rows))
    text = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == rows
    assert "Größe 日本" in text


def test_the_card_names_halves_data_scores_rivals_command_and_licence(documents, references):
    judgement = judge(references, references, documents, EvaluationSettings(bootstrap_samples=50), 0)
    card = model_card(
        {
            "choices": {"encoder": "bert", "decoder": "gpt2", "data": "written"},
            "metrics": judgement.metrics,
            "baselines": judgement.baselines,
            "controls": judgement.controls,
            "parameters": {"total": 2_500_000, "new": 100_000},
            "generation": {"num_beams": 4},
            "overrides": "python run.py encoder=bert decoder=gpt2",
            "seed": 3,
            "git_commit": "abc",
            "versions": {"torch": "2.13"},
        },
        USE,
    )
    assert card.startswith("---\nlibrary_name: transformers\n")
    for part in (
        "| encoder | `bert` |",
        "| decoder | `gpt2` |",
        "| data | `written` |",
        "| parameters, total | 2.5 M |",
        "`num_beams=4`",
        "| this model | 100.00 (100.00 to 100.00) |",
        "| lead1 | ",
        "| lead3 | ",
        "| another document | ",
        "- It reads its document: ",
        "```\npython run.py encoder=bert decoder=gpt2\n```",
        "Seed 3; commit abc; torch 2.13.",
        "## Licence",
    ):
        assert part in card, part


@pytest.mark.parametrize("as_text", [False, True])
def test_the_card_shows_no_folders_of_this_machine(as_text, tmp_path):
    spaced = tmp_path / "my runs" / "teacher"
    spaced.mkdir(parents=True)
    for name in ("texts.csv", "more.csv"):
        (tmp_path / name).touch()
    words = [
        *("encoder=bert", f"data.path={tmp_path}/texts.csv", f"output_root={tmp_path}", "data.prompt=/no/such/folder"),
        *(f"data.paths=[{tmp_path}/texts.csv,{tmp_path}/more.csv]", f"data.name=/{'long' * 100}"),
    ]
    given = shlex.join(["python", "run.py", *words]) if as_text else [*words, f"optim.teacher='{spaced}'"]
    card = model_card({"overrides": given}, USE)
    assert str(tmp_path) not in card
    last = tmp_path.name
    for part in (
        "data.path=texts.csv",
        f"output_root={last}",
        "=[texts.csv,more.csv]",
        "data.prompt=/no/such/folder",
        "/longlong",
    ):
        assert part in card
    assert as_text or "teacher" in card


@pytest.mark.parametrize("n", [1, 12])
def test_a_card_from_a_result_with_nulls_says_what_they_mean(documents, references, tmp_path, n):
    nats = {name: np.full(n, np.nan) for name in ("own", "shuffled_document", "decoder_alone")}
    settings = EvaluationSettings(bootstrap_samples=50)
    judgement = judge(references[:n], references[:n], documents[:n], settings, 0, likelihoods=nats, alone="A text.")
    parts = {name: getattr(judgement, name) for name in ("metrics", "baselines", "controls")}
    RunDir(tmp_path).write_result(parts)
    result = RunDir(tmp_path).read_result()
    assert len(result["metrics"]["test/rouge1_ci"]) == 2
    card = model_card(result, USE)
    assert sorted(card.splitlines()) == sorted(model_card(parts, USE).splitlines())  # as the run itself writes it
    assert "Likelihoods of references are not finite" in card
    assert "| this model | 100.00 |" in card if n == 1 else "| this model | 100.00 (100.00 to 100.00) |" in card


def test_the_card_tells_what_the_chosen_baselines_are(documents, references):
    training = [Example("0", documents[0], "A target."), Example("1", documents[1], "A target.")]
    settings, chosen = EvaluationSettings(bootstrap_samples=50), ("lead", "copula", "nearest", "most_frequent")
    judgement = judge(references, references, documents, settings, 0, baselines=chosen, training=training)
    card = model_card({"metrics": judgement.metrics, "baselines": judgement.baselines}, USE)
    for part in (
        *("| lead1 | ", "| copula rule | ", "| nearest training text | ", "| most frequent target | "),
        "`copula rule` takes the words after the first is, are, was or were",
        "`nearest training text` is the target of the most similar of 2 training documents, by tf-idf.",
        "`most frequent target` is that of 2 training examples.",
        "- It beats the copula rule: ",
    ):
        assert part in card, part
    assert "copied source" not in card


def test_the_card_names_the_owners_of_the_texts():
    data = {"name": "short_descriptions", "attribution": "Wikipedia's authors, CC BY-SA 4.0"}
    card = model_card({"config": {"data": data}}, USE)
    assert card.endswith("\nTexts of `short_descriptions`: Wikipedia's authors, CC BY-SA 4.0.\n")
    for older in ({}, {"config": {"data": {"name": "news"}}}, {"config": {"data": data | {"attribution": None}}}):
        assert "Texts of" not in model_card(older, USE)


def test_the_cards_command_can_be_pasted():
    words = ['data.path="/my data/x.jsonl"', "optim.betas=[0.9,0.98]", "name=it's"]
    (command,) = [
        line for line in model_card({"overrides": words}, USE).splitlines() if line.startswith("python run.py")
    ]
    assert shlex.split(command) == ["python", "run.py", *words]


def test_the_card_of_a_model_that_was_never_scored_says_so():
    assert "Not evaluated." in model_card({}, USE)
    assert "python run.py encoder=bert" in model_card({"overrides": ["encoder=bert"], "seed": 1}, USE)
