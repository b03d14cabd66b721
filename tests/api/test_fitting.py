"""A fit from Python gives the run of the command line, and leaves the process as it was."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import warmstart
from warmstart.api.fitting import fit
from warmstart.cli.main import config_dir
from warmstart.errors import Interrupted
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit as fit_task


@pytest.fixture
def settings_of_fit(monkeypatch, tmp_path):
    """``settings_of_fit(...)`` returns the settings with which ``fit`` calls its task, and its folder."""
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    taken = []

    def ask(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(fit_task, "run", lambda *inputs: taken.append(inputs))
            with pytest.raises(warmstart.UserError, match=r"result\.json"):  # the task has written no result
                fit(*args, **({"output_root": tmp_path / "runs"} | kwargs))
        return taken[-1]

    return ask


def library_settings():
    logging = transformers.logging
    return logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_num_threads()


def test_a_run_of_pairs(run, root):
    assert run.folder == root / "first"
    assert {"rouge1", "rouge2", "rougeL", "rougeLsum", "nll"} <= run.scores.keys()
    low, high = run.intervals["rouge1"]
    assert low <= run.scores["rouge1"] <= high
    assert "lead1" in run.baselines
    assert {"document", "reference", "prediction"} <= run.predictions[0].keys()
    assert "debug=tiny" in run.result["overrides"]
    assert run.result["config"]["data"]["name"] == "files"
    assert RunDir(run.folder).read_hydra_config()["name"] == "first"
    assert "rouge1" in repr(run)


def test_a_finished_run_is_returned_by_its_name(run, root, pairs):
    written = RunDir(run.folder).result.stat().st_mtime_ns
    again = fit(iter(pairs), name="first", output_root=root, overrides={"debug": "tiny"})
    assert RunDir(again.folder).result.stat().st_mtime_ns == written


def test_nothing_is_left_in_the_process(settings_of_fit):
    before = library_settings()
    configs = dict(ConfigStore.instance().repo)
    with initialize_config_dir(config_dir(), job_name="of the caller", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        settings_of_fit(recipe="demo")
        assert GlobalHydra.instance().hydra is hydra
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()
    assert ConfigStore.instance().repo == configs
    assert library_settings() == before


def test_a_hydra_application_of_the_caller_keeps_its_config(settings_of_fit, monkeypatch):
    with initialize_config_dir(config_dir(), version_base="1.3"):
        ConfigStore.instance().store(name="schema", node={"mine": 1})
        of_caller = OmegaConf.create({"hydra": {}})
        monkeypatch.setattr(HydraConfig.instance(), "cfg", of_caller)
        settings, _ = settings_of_fit(recipe="demo")
        assert settings.encoder.name == "minilm"
        assert HydraConfig.instance().cfg is of_caller
        assert compose("schema").mine == 1
    ConfigStore.instance().repo.pop("schema.yaml")


def test_recipes_choices_and_overrides(settings_of_fit):
    settings, folder = settings_of_fit(
        recipe="demo",
        decoder="gpt2",
        overrides={"trainer.max_steps": 7, "optim.betas": [0.8, 0.9], "seed": 3},
        name="a",
    )
    assert (settings.encoder.name, settings.decoder.name, settings.data.name) == (
        "minilm",
        "gpt2",
        "short_descriptions",
    )
    assert (settings.trainer.max_steps, list(settings.optim.betas), settings.seed) == (7, [0.8, 0.9], 3)
    assert settings.generation.num_beams == 1  # of the recipe
    assert folder.name == "a"
    assert settings_of_fit(overrides=["data=news", "trainer.max_steps=8"])[0].trainer.max_steps == 8


@pytest.mark.parametrize("name", ["google/any-bert", "my encoder (1)"])
def test_checkpoints_without_a_choice(settings_of_fit, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    transformers.BertConfig().save_pretrained(name)
    settings, folder = settings_of_fit([("a", "b")], encoder=name, name="a run (2)")
    assert settings.encoder.path == name
    assert folder.name == "a run (2)"


def test_a_path_is_read_where_it_is(settings_of_fit, tmp_path):
    path = tmp_path / "my articles (1).csv"
    path.write_text("text,headline\na,b\n")
    settings, _ = settings_of_fit(path, document_column="text", summary_column="headline")
    data = settings.data
    assert (data.name, data.path, data.document_column, data.summary_column) == ("files", str(path), "text", "headline")
    data = settings_of_fit(path, test=str(path))[0].data
    assert (data.path, data.train_path, data.test_path) == (None, str(path), str(path))


def test_splits_of_a_mapping(settings_of_fit):
    data = settings_of_fit({"train": [("a", "b")], "validation": [("c", "d")]}, test=[("e", "f")])[0].data
    paths = data.train_path, data.validation_path, data.test_path
    assert len(set(paths)) == 3
    assert all(Path(path).read_text() for path in paths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "dmeo"}, "Did you mean experiment=demo"),
        ({"encoder": "bret"}, "Did you mean encoder=bert"),
        ({"overrides": {"trainer.max_stepz": 1}}, r"trainer\.max_stepz.*(\n.*)*trainer\.max_steps"),
        ({"overrides": {"trainer.max_steps": "many"}}, r"trainer\.max_steps"),
        ({"overrides": "seed=1"}, "one text"),
        ({"name": " "}, "names no folder"),
        ({"train": {"training": []}}, "training"),
        ({"train": "a.csv", "test": [("a", "b")]}, "all as one kind"),
        ({"train": {"test": [("a", "b")]}}, "no training texts"),
        ({"train": {}}, "no training texts"),
        ({"validation": "a.csv", "recipe": "demo"}, "no training texts"),
        ({"overrides": {"trainer.devices": 2}, "name": "two"}, "torchrun --nproc-per-node 2"),
        ({"overrides": {"task": "evaluate"}}, r"warmstart\.fit runs task=fit"),
        ({"overrides": {"sweep": "warm_start"}}, "has several jobs"),
        ({"overrides": {"trainer.max_epochs": 0}}, r"trainer\.max_epochs=0 is invalid"),
        ({"overrides": ["encoder=[bert,roberta]"]}, "a run has one encoder"),
    ],
)
def test_mistakes_are_refused_before_a_folder_is_made(arguments, message, tmp_path):
    with pytest.raises(warmstart.UserError, match=message):
        fit(**({"train": None, "output_root": tmp_path / "runs"} | arguments))
    assert not (tmp_path / "runs").exists()
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("a", "b"), ("c", None)], r"^train: row 2 has no summary\. Fix or delete the row"),
        ([("a", "b")] * 9, r"9 training examples with 1 different documents are too few to split off validation"),
        ({"train": [("a", "b")], "validation": [("c", "")]}, r"^validation: row 1 has an empty summary"),
    ],
)
def test_refused_texts_are_named_as_arguments_and_leave_no_folder(texts, message, tmp_path, monkeypatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    with pytest.raises(warmstart.UserError, match=message):
        fit(texts, overrides=["debug=tiny"], output_root=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_options_are_checked_after_the_recipe_of_the_texts(settings_of_fit):
    maximum = {"generation.max_new_tokens": 40}  # less than the default minimum, which the recipe lowers
    settings, _ = settings_of_fit([(f"Ana has {i} boats.", "Ana.") for i in range(40)], overrides=maximum)
    assert settings.generation.max_new_tokens == 40


def test_ctrl_c_is_a_keyboard_interrupt(monkeypatch, tmp_path):
    def interrupted(settings, folder):
        raise Interrupted(signal.SIGINT, None)

    monkeypatch.setattr(fit_task, "run", interrupted)
    with pytest.raises(KeyboardInterrupt, match="The same command resumes"):
        fit(recipe="demo", output_root=tmp_path)


def test_an_unfinished_run_is_refused(tmp_path):
    RunDir(tmp_path).write_result({"status": "failed", "error": "UserError: no texts"})
    with pytest.raises(warmstart.UserError, match="not a finished run: UserError: no texts"):
        warmstart.TrainedRun(tmp_path)


@pytest.mark.slow
def test_torchrun_starts_the_ranks_of_a_script(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, pathlib, warmstart\n"
        'pairs = [(f"Document number {i} about a storm in the north.", f"Storm {i}.") for i in range(60)]\n'
        'options = {"debug": "tiny", "trainer.devices": 2, "trainer.accelerator": "cpu"}\n'
        'run = warmstart.fit(pairs, encoder="bert", decoder="gpt2", name="two", overrides=options)\n'
        'pathlib.Path("rank_" + os.environ["RANK"]).write_text(str(run.result["steps"]))\n'
    )
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = subprocess.run(
        [*launcher, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    # Files, because the words that two ranks print can fall into each other.
    assert [(tmp_path / f"rank_{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
