"""The models on the page, what it says of them, and the texts to try."""

import json
import shutil

import pytest

from warmstart.errors import UserError
from warmstart.page.menu import LOADED
from warmstart.runs.model_card import Use, model_card


def test_runs_in_the_folder_of_runs_can_be_chosen(menu, run, grafted):
    assert menu.paths == [str(run.folder), str(grafted.folder)]
    model = menu.load(str(run.folder))
    assert menu.load(str(run.folder)) is model
    with pytest.raises(UserError, match="not on the menu"):
        menu.load("/etc")


def test_few_models_stay_in_memory(menu_of, run, grafted, tmp_path):
    shutil.copytree(run.folder / "export", tmp_path / "alone")
    menu = menu_of(f"runs=[{grafted.folder},{tmp_path / 'alone'}]")
    first = menu.load(menu.paths[0])
    assert len(menu.paths) == LOADED + 1
    for path in menu.paths[1:]:
        menu.load(path)
    assert menu.load(menu.paths[0]) is not first


def test_a_run_is_described_with_its_score_and_its_best_baseline(menu, run, grafted):
    about = menu.about(str(run.folder))
    assert about.made_of.startswith("Encoder bert, decoder gpt2, 0.")
    assert about.trained_on.startswith("Trained on files")
    assert f"ROUGE-1 {run.scores['rouge1']:.1f} [" in about.score
    assert "test texts. The best baseline (" in about.score
    assert about.details
    assert "validation texts." in menu.about(str(grafted.folder)).score  # of a fit with evaluation.test=false
    assert menu.about("/etc").made_of == ""


def test_the_best_baseline_is_no_upper_bound_and_the_best_by_its_score(menu_of, run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run.folder, folder)
    result = json.loads((folder / "result.json").read_text())
    rival = next(iter(result["baselines"].values()))
    rivals = {
        "lead1": rival | {"rouge1": 31.0, "ter": 88.0},
        "nearest": rival | {"rouge1": 30.0, "ter": 77.0},
        "oracle": rival | {"rouge1": 99.0, "ter": 1.0},
    }
    (folder / "result.json").write_text(json.dumps(result | {"baselines": rivals}))
    menu = menu_of(f"runs=[{folder}]")
    assert "The best baseline (lead1) has 31.0." in menu.about(str(folder)).score
    card = model_card(result | {"baselines": rivals}, Use(transformers_opens=False, max_source_length=9))
    shutil.copytree(run.folder / "export", tmp_path / "alone")
    (tmp_path / "alone" / "README.md").write_text(card)
    assert (
        "The best baseline (lead1) has 31.0." in menu_of(ckpt=tmp_path / "alone").about(str(tmp_path / "alone")).score
    )
    of_ter = {"metrics": {"test/ter": 80.0, "test/examples": 9}, "signatures": ["ter|x"], "baselines": rivals}
    (folder / "result.json").write_text(json.dumps(result | of_ter))
    assert (
        "TER 80.0 on 9 test texts. The best baseline (nearest training text) has 77.0." in menu.about(str(folder)).score
    )


def test_an_export_is_described_by_its_card(menu_of, run, tmp_path):
    shutil.copytree(run.folder / "export", tmp_path / "alone")
    about = menu_of(ckpt=tmp_path / "alone").about(str(tmp_path / "alone"))
    assert about.made_of.startswith("Encoder bert, decoder gpt2, 0.")
    assert f"ROUGE-1 {run.scores['rouge1']:.1f} [" in about.score
    assert "The best baseline (" in about.score
    (tmp_path / "alone" / "README.md").unlink()
    assert "not evaluated" in menu_of(ckpt=tmp_path / "alone").about(str(tmp_path / "alone")).score


def test_test_predictions_are_the_examples(menu_of, run, tmp_path):
    examples = menu_of().examples()
    assert examples[0].document == run.predictions[0]["document"]
    assert examples[0].reference == run.predictions[0]["reference"]
    shutil.copytree(run.folder / "export", tmp_path / "alone")
    assert "Danube" in menu_of(ckpt=tmp_path / "alone").examples()[0].document


def test_a_folder_without_models_is_refused(menu_of, tmp_path):
    with pytest.raises(UserError, match="neither a run with a checkpoint nor an export"):
        menu_of(f"runs=[{tmp_path}]")
