"""Two runs have one hash exactly when their numbers have to be the same; a failed run says so."""

import json

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from warmstart.errors import UserError
from warmstart.runs.identity import config_hash, identity, run_name
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import evaluate, fit


def test_names_and_places_do_not_change_the_hash(settings_of):
    base = config_hash(settings_of("debug=tiny"))
    for same in (
        *("name=other", "output_root=elsewhere", "logger=wandb", "task=check", "encoder.name=mine"),
        *("trainer.log_every=3", "trainer.progress_bar=true", "data.batch.workers=2", "data.processes=1"),
    ):
        assert config_hash(settings_of("debug=tiny", same)) == base, same
    for other in (
        *("seed=2", "encoder=roberta", "encoder.path=elsewhere", "decoder.revision=abc", "bridge.share=embeddings"),
        *("optim.encoder_rate=1e-3", "generation.max_new_tokens=9", "data.limit_train=9", "data.clean=[mend_quotes]"),
    ):
        assert config_hash(settings_of("debug=tiny", other)) != base, other


def test_the_hash_is_the_same_in_every_process(settings_of, run_py, tmp_path):
    # A literal would tie the test to every default; another process has other string hashes and set orders.
    run_py("debug=tiny", "name=other", "trainer.validations_per_epoch=0", cwd=tmp_path)
    other = RunDir(tmp_path / "runs" / "other").read_result()
    assert other["config_hash"] == config_hash(settings_of("debug=tiny", "trainer.validations_per_epoch=0"))
    assert other["overrides"] == ["debug=tiny", "name=other", "trainer.validations_per_epoch=0"]
    assert other["status"] == "failed"


def test_overrides_are_the_jobs_own_and_not_the_sweeps(settings_of, monkeypatch):
    job = OmegaConf.create({"hydra": {"overrides": {"task": ["encoder=bert"]}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", job)
    monkeypatch.setattr("sys.argv", ["run.py", "-m", "encoder=bert,roberta"])
    assert identity(settings_of("debug=tiny"))["overrides"] == ["encoder=bert"]


def test_a_job_of_a_sweep_is_named_by_its_choices_and_a_run_by_its_folder(settings_of, monkeypatch, tmp_path):
    line = ["debug=tiny", "encoder=bert,roberta", "optim.new_rate=tag(log,interval(1e-4,1e-1))", "bridge=share,default"]
    sweep = {"hydra": {"overrides": {"task": line}, "sweeper": {"params": {"seed": "1,2", "logger": "wandb"}}}}
    OmegaConf.save(OmegaConf.create(sweep), tmp_path / "multirun.yaml")
    chosen = ["debug=tiny", "encoder=roberta", "optim.new_rate=0.0031234567", "bridge=share", "seed=2", "logger=wandb"]
    settings = settings_of("debug=tiny", "encoder=roberta", "seed=2")
    for mode, name in (
        (RunMode.MULTIRUN, "roberta-gpt2-optim.new_rate=0.003123-share-seed2"),
        (RunMode.RUN, "0123abcd"),
    ):
        job = {"hydra": {"mode": mode, "overrides": {"task": chosen}}}
        monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create(job))
        assert run_name(settings, tmp_path / "0123abcd") == name


def test_rows_are_counted_by_split_and_by_what_became_of_them(settings_of, tmp_path):
    settings = settings_of("debug=tiny", "data.limit_train=20", "data.max_target_length=12")
    fit.run(settings, tmp_path)
    rows = RunDir(tmp_path).read_result()["rows"]
    assert rows["train"] == {"read": 32, "kept": 20, "skipped": 12, "sampled": True} | {
        key: rows["train"][key] for key in ("truncated_documents", "truncated_summaries")
    }
    assert rows["test"]["read"] == rows["test"]["kept"] == 8
    assert rows["test"]["sampled"] is False
    assert rows["test"]["truncated_summaries"] == 8  # none of the written summaries has so few tokens
    assert 0 <= rows["train"]["truncated_documents"] <= 20
    evaluate.run(settings_of("debug=tiny", f"ckpt={tmp_path}"), tmp_path / "again")
    assert RunDir(tmp_path / "again").read_result()["rows"]["train"]["kept"] == 32


def test_a_failed_fit_says_so_and_keeps_an_earlier_result_apart(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny"), tmp_path)
    done = RunDir(tmp_path).read_result()
    assert done["status"] == "complete"
    assert len(done["config_hash"]) == 16
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", "trainer.validations_per_epoch=99", "ckpt=new"), tmp_path)
    failed = RunDir(tmp_path).read_result()
    assert failed["status"] == "failed"
    assert failed["error"].startswith("UserError: trainer.validations_per_epoch=99")
    assert failed["config_hash"] != done["config_hash"]
    assert "metrics" not in failed
    assert json.loads((tmp_path / "result.previous.json").read_text()) == done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.encoder_rate=-1"], "UserError: optim.encoder_rate=-1"),
        (["optim.encoder_rate=-1", "optim.new_rate=-2"], "UserError: 2 faults in this config: - optim.encoder_rate=-1"),
        (["data.limit_train=0"], "UserError: data.limit_train=0"),
        (["decoder.weights=pretrained", "decoder.scale=full", "decoder.path=/absent"], "/absent"),
        (["trainer.validations_per_epoch=99"], "trainer.validations_per_epoch=99 was asked for, but an epoch has "),
    ],
)
def test_a_fit_that_dies_before_its_first_step_says_so_too(words, said, settings_of, tmp_path):
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", *words), tmp_path)
    failed = RunDir(tmp_path).read_result()
    assert failed["status"] == "failed"
    assert said in failed["error"]


def test_a_defect_of_ours_is_left_as_well(settings_of, tmp_path, monkeypatch):
    monkeypatch.setattr("warmstart.evaluation.judgement.rouge_scores", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit.run(settings_of("debug=tiny"), tmp_path)
    assert RunDir(tmp_path).read_result()["error"] == "ZeroDivisionError: division by zero"


def test_an_interrupted_fit_leaves_no_result_that_could_be_taken_for_its_own(settings_of, tmp_path, monkeypatch):
    fit.run(settings_of("debug=tiny"), tmp_path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("warmstart.model.halves.build_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit.run(settings_of("debug=tiny", "ckpt=new"), tmp_path)
    with pytest.raises(UserError, match="did not finish"):
        RunDir(tmp_path).read_result()


def test_an_unfinished_run_of_another_config_is_asked_about(run_py, tmp_path):
    words = ("debug=tiny", "name=r")
    assert run_py(*words, cwd=tmp_path).returncode == 0
    last = tmp_path / "runs" / "r" / "checkpoints" / "last.ckpt"
    (last.parent / "unfinished").write_text("of another\n")
    before = last.read_bytes()
    outcome = run_py(*words, cwd=tmp_path)
    assert outcome.returncode == 2
    assert "holds an unfinished run of another config" in outcome.stderr
    assert last.read_bytes() == before
    assert run_py(*words, "ckpt=new", cwd=tmp_path).returncode == 0
