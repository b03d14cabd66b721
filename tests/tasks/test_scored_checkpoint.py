"""A result names the weights that it is of, and no other weights, halves or counts are taken for them."""

import json
import shutil

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from warmstart.cli.main import config_dir
from warmstart.config.schema import to_settings
from warmstart.errors import UserError
from warmstart.runs.checkpoint_io import read_sums
from warmstart.runs.recorded import with_recorded
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import OF_EXPORT, SavedModel
from warmstart.sweeps import sweep
from warmstart.tasks import evaluate, export, fit, summarize

CHOICES = ("debug=tiny", "encoder=roberta", "decoder=distilgpt2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny fit of four steps, validated after each two, so that best.ckpt may be another than last.ckpt."""
    from warmstart.config.schema import register

    register()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)
    folder = tmp_path_factory.mktemp("trained")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        words = [*CHOICES, "trainer.max_steps=4", "trainer.max_epochs=4", f"data.cache_dir={folder / 'cache'}"]
        settings = to_settings(compose("config", overrides=words))
    fit.run(settings, folder / "run")
    return folder / "run"


@pytest.fixture
def run_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def of(ckpt, *words):
    words = [*words, f"ckpt={ckpt}"]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return to_settings(with_recorded(compose("config", overrides=words), words))


def spoil(run_dir):
    """best.ckpt is made another file than last.ckpt, whatever four steps have found."""
    result = RunDir(run_dir).read_result()
    result["checkpoint"]["sha256"] = "0" * 64
    (run_dir / "result.json").write_text(json.dumps(result))


def test_a_fit_names_its_best_checkpoint(run_dir):
    found = RunDir(run_dir).read_result()["checkpoint"]
    assert found["name"] == "best.ckpt"
    assert [found["sha256"]] == read_sums(run_dir / "checkpoints")["best.ckpt"]


def test_an_evaluation_names_what_it_scored_and_counts_as_the_fit_did(run_dir, tmp_path, monkeypatch):
    last, loads, load = run_dir / "checkpoints" / "last.ckpt", [], SavedModel.load
    monkeypatch.setattr(SavedModel, "load", lambda self: loads.append(self.given) or load(self))
    evaluate.run(of(last, "data=written"), tmp_path / "last")
    assert loads == [str(last)]  # once: two models of a billion weights would not fit
    result, fitted = RunDir(tmp_path / "last").read_result(), RunDir(run_dir).read_result()
    assert result["checkpoint"]["name"] == "last.ckpt"
    assert [result["checkpoint"]["sha256"]] == read_sums(run_dir / "checkpoints")["last.ckpt"]
    assert result["parameters"] == fitted["parameters"]
    assert result["parameters"]["new"] == result["parameters"]["total"]  # both halves began at random


def test_an_export_is_called_what_it_is(run_dir, tmp_path):
    lengths = ("data.max_source_length=64", "data.max_target_length=24")
    evaluate.run(of(run_dir / "export", "data=written", *lengths), tmp_path / "again")
    result, fitted = RunDir(tmp_path / "again").read_result(), RunDir(run_dir).read_result()
    assert result["choices"] == fitted["choices"]
    assert result["parameters"] == fitted["parameters"]
    assert result["checkpoint"]["name"] == "export"
    assert result["metrics"]["test/nll"] == fitted["metrics"]["test/nll"]
    for group in ("encoder", "decoder", "bridge"):
        assert result["config"][group] == fitted["config"][group]
    assert not (tmp_path / "again" / "export").exists()


def test_an_export_without_a_record_is_not_called_after_this_command_line(run_dir):
    (run_dir / "export" / OF_EXPORT).unlink()
    settings = of(run_dir / "export")
    assert settings.encoder.name == "encoder of export"
    assert settings.decoder.path == str(run_dir / "export")


def test_a_record_holds_no_place_of_this_machine(run_dir, tmp_path):
    model, tokenizers, _ = SavedModel(str(run_dir)).load()
    settings = of(run_dir)
    settings.encoder.path = str(tmp_path)
    settings.decoder.tokenizer = str(tmp_path)
    export.export_model(model, tokenizers, tmp_path / "shared", {}, settings)
    assert str(tmp_path) not in (tmp_path / "shared" / OF_EXPORT).read_text()


def test_the_card_has_scores_of_the_exported_weights_alone(run_dir, tmp_path):
    best = of(run_dir, f"output={tmp_path / 'best'}")
    export.run(best, tmp_path)
    assert "## Scores" in (tmp_path / "best" / "README.md").read_text()
    spoil(run_dir)
    export.run(of(run_dir, f"output={tmp_path / 'other'}"), tmp_path)
    assert "Not evaluated" in (tmp_path / "other" / "README.md").read_text()


def test_an_evaluation_scores_the_validation_split_if_its_command_leaves_out_the_test_split(
    run_dir, tmp_path, monkeypatch, capsys
):
    words = ["evaluation.test=false"]
    evaluate.run(of(run_dir, *words), tmp_path / "recorded")  # as where only the fit's settings say so
    assert RunDir(tmp_path / "recorded").read_result()["test_looks"] == 2
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"overrides": {"task": words}}}))
    evaluate.run(of(run_dir, *words), tmp_path / "said")
    result = RunDir(tmp_path / "said").read_result()
    assert {name.partition("/")[0] for name in result["metrics"]} == {"validation"}
    assert "test" not in result["rows"]
    assert "test_looks" not in result
    assert "validation examples" in capsys.readouterr().out
    assert RunDir(run_dir).read_result()["test_looks"] == 2


def test_a_failed_evaluation_leaves_result_and_predictions_of_one_run(run_dir, tmp_path, monkeypatch):
    before = (run_dir / "predictions.jsonl").read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("warmstart.evaluation.judgement.judge", full)
    with pytest.raises(OSError, match="No space"):
        evaluate.run(of(run_dir, "data=written", "data.limit_test=3"), run_dir)
    assert RunDir(run_dir).read_result()["metrics"]["test/examples"] == before.count("\n")
    assert (run_dir / "predictions.jsonl").read_text() == before
    monkeypatch.undo()
    monkeypatch.setattr("warmstart.runs.run_dir.RunDir.write_result", full)
    with pytest.raises(OSError, match="No space"):
        evaluate.run(of(run_dir, "data=written", "data.limit_test=3"), run_dir)
    assert (run_dir / "predictions.jsonl").read_text() != before
    assert not (run_dir / "result.json").exists()


def test_a_job_of_a_sweep_keeps_its_result(run_dir, caplog):
    job = run_dir.rename(run_dir.with_name(RunDir(run_dir).read_result()["config_hash"]))
    with pytest.raises(UserError, match="is a job of a sweep"):
        evaluate.run(of(job), job)
    result = RunDir(job).read_result()
    assert sweep.run_job(of(job), job) == result["validation"]["best"]
    del result["validation"]
    (job / "result.json").write_text(json.dumps(result | {"config_hash": "another"}))
    with pytest.raises(sweep.JobFailed, match="a result that is not from this sweep's fit"):
        sweep.run_job(of(job), job)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("evaluation.lead_sentences=0", "at least 1"),
        ("evaluation.control_samples=-1", "at least 0"),
        ("generation.num_beams=0", "at least 1"),
        ("generation.min_new_tokens=999", "is more than"),
    ],
)
def test_numbers_that_cannot_work_are_said_before_anything_is_loaded(word, said, settings_of, tmp_path):
    with pytest.raises(UserError, match=said):
        evaluate.run(settings_of("debug=tiny", word, "ckpt=nowhere"), tmp_path)


@pytest.mark.parametrize(("word", "said"), [("max_new_tokens=5000", "positions"), ("num_beams=900000", "tokens")])
def test_a_search_that_the_loaded_decoder_cannot_do_is_said(word, said, run_dir, tmp_path):
    asked = (f"generation.{word}", "data=written")
    for task, module in (("evaluate", evaluate), ("summarize", summarize)):
        with pytest.raises(UserError, match=said):
            module.run(of(run_dir, f"task={task}", *asked, f"input={run_dir}/predictions.jsonl"), tmp_path / "new")


def test_words_that_are_a_fits_are_not_ignored_silently(settings_of, tmp_path, monkeypatch):
    words = ["trainer=gpu"]
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"overrides": {"task": words}}}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"trainer.accelerator=gpu was requested, but torch finds no GPU"):
        evaluate.run(settings_of("debug=tiny", "trainer.accelerator=gpu", "ckpt=nowhere"), tmp_path)
