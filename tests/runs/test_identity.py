"""Two runs have one hash exactly when their numbers have to be the same; a failed run says so."""

import json
from dataclasses import make_dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from warmstart.cli.main import config_dir
from warmstart.config.option import option
from warmstart.config.schema import OPTIONS, Config, to_settings
from warmstart.config.training import OptimSettings
from warmstart.errors import UserError
from warmstart.runs.identity import config_hash, config_hash_1, identity, run_name
from warmstart.runs.run_dir import RunDir
from warmstart.sweeps.sweep import job_folder, run_job
from warmstart.tasks import evaluate, fit

HERE = Path(__file__).parent


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


def with_field(default, group=None, **stated):
    """A class of settings as a later release may have it: with the field ``added``, in a group or at the top."""
    added = ("added", type(default), option(default, doc="Added later.", **stated))
    if group is None:
        return make_dataclass("Later", [added], bases=(Config,))
    wider = make_dataclass("Wider", [added], bases=(group,))
    return make_dataclass("Later", [("optim", wider, option(default_factory=wider, doc="Wider."))], bases=(Config,))


def test_a_new_option_leaves_every_hash_as_it_is():
    for later in (with_field(3), with_field(3, OptimSettings), with_field("new", first_default="old")(added="old")):
        settings = later if isinstance(later, Config) else later()
        assert config_hash(settings) == config_hash(Config())
        assert config_hash_1(settings) == config_hash_1(Config())


def test_a_new_option_that_is_set_changes_the_hash():
    at_top, in_group = with_field(3), with_field(3, OptimSettings)
    set_in_group = in_group()
    set_in_group.optim.added = 4
    for settings in (at_top(added=4), set_in_group, with_field("new", first_default="old")()):
        assert config_hash(settings) != config_hash(Config())
        assert config_hash_1(settings) is None  # no run of an earlier release is the same
    assert config_hash(with_field(3, changes_result=False)(added=4)) == config_hash(Config())


@pytest.mark.parametrize(
    ("key", "value", "changes"),
    [
        *(("seed", 2, True), ("optim.weight_decay", 0.1, True), ("optim.betas", [0.9, 0.98], True)),
        *(("trainer.max_steps", 9, True), ("trainer.monitor", "validation/rouge1", True)),
        *(("name", "x", False), ("trainer.log_every", 3, False), ("logger.wandb", True, False)),
        *(("data.batch.workers", 2, False), ("encoder.name", "x", False)),
    ],
)
def test_an_option_away_from_its_default_changes_the_hash_if_it_changes_results(key, value, changes):
    settings = Config()
    *groups, name = key.split(".")
    within = settings
    for group in groups:
        within = getattr(within, group)
    setattr(within, name, value)
    assert (config_hash(settings) != config_hash(Config())) is changes


def test_no_default_changes_without_a_record_of_the_old_one():
    recorded = json.loads((HERE / "first_defaults.json").read_text())
    found = {key: one.first_default for key, one in OPTIONS.items() if one.changes_result}
    changed = [key for key in recorded.keys() & found.keys() if recorded[key] != found[key]]
    assert not changed, "A run at the new default would have the hash of one at the old: state first_default=OLD."
    assert recorded.keys() == found.keys(), "Add a line for each new option to first_defaults.json."


def test_version_1_of_the_hash_is_what_earlier_releases_recorded():
    recorded = json.loads((HERE / "recorded_by_version_1.json").read_text())
    settings = to_settings(OmegaConf.merge(OmegaConf.structured(Config), recorded["config"]))
    assert config_hash_1(settings) == recorded["config_hash"]
    assert config_hash(settings).startswith("v2-")


def begun_by_version_1(run_dir, settings):
    """Mark a finished run as one that an earlier release began."""
    RunDir(run_dir).checkpoints.finished.write_text(f"{config_hash_1(settings)}\n")
    result = RunDir(run_dir).read_result() | {"config_hash": config_hash_1(settings)}
    (run_dir / "result.json").write_text(json.dumps(result))


def test_a_run_of_an_earlier_release_is_finished_or_resumed_under_its_own_hash(settings_of, tmp_path, caplog):
    settings, run = settings_of("debug=tiny"), tmp_path / "run"
    best = fit.run(settings, run)
    assert RunDir(run).read_result()["config_hash"] == config_hash(settings)
    begun_by_version_1(run, settings)
    with caplog.at_level("INFO"):
        assert fit.run(settings, run) == best
    assert "Already complete, not run again" in caplog.text

    RunDir(run).checkpoints.finished.rename(RunDir(run).checkpoints.unfinished)
    (run / "result.json").unlink()
    assert fit.run(settings, run) == best
    assert RunDir(run).read_result()["resumed"]
    assert RunDir(run).read_result()["config_hash"] == config_hash_1(settings)
    assert RunDir(run).checkpoints.finished.read_text().strip() == config_hash_1(settings)

    with pytest.raises(UserError, match="a complete run with another config"):
        fit.run(settings_of("debug=tiny", "seed=2"), run)


def test_a_sweep_of_an_earlier_release_finds_its_jobs(settings_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = settings_of("debug=tiny", "name=s")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        words = ["debug=tiny", "name=s", f"data.cache_dir={settings.data.cache_dir}", "hydra.sweep.dir=runs/multirun/s"]
        job = compose("config", overrides=words, return_hydra_config=True)
    assert job_folder(job) == config_hash(settings)

    sweep, earlier = tmp_path / "runs" / "multirun" / "s", str(config_hash_1(settings))
    best = fit.run(settings, sweep / earlier)
    assert RunDir(sweep / earlier).read_result()["config_hash"] == earlier
    assert job_folder(job) == earlier
    before = (sweep / earlier / "result.json").stat().st_mtime_ns
    assert run_job(settings, sweep / earlier) == best
    assert (sweep / earlier / "result.json").stat().st_mtime_ns == before


def test_the_hash_is_the_same_in_every_process(settings_of, run_py, tmp_path):
    # A literal would tie the test to every default; another process has other string hashes and set orders.
    run_py("debug=tiny", "name=other", "trainer.validations_per_epoch=0", cwd=tmp_path)
    other = RunDir(tmp_path / "runs" / "other").read_result()
    assert other["config_hash"] == config_hash(settings_of("debug=tiny", "trainer.validations_per_epoch=0"))
    assert other["overrides"] == ["debug=tiny", "name=other", "trainer.validations_per_epoch=0"]
    assert other["status"] == "failed"


def test_overrides_are_the_jobs_own_and_not_the_sweeps(settings_of, monkeypatch, tmp_path):
    job = OmegaConf.create({"hydra": {"overrides": {"task": ["encoder=bert"]}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", job)
    monkeypatch.setattr("sys.argv", ["run.py", "-m", "encoder=bert,roberta"])
    assert identity(settings_of("debug=tiny"), RunDir(tmp_path))["overrides"] == ["encoder=bert"]


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
        (["optim.encoder_rate=-1", "optim.new_rate=-2"], "UserError: 2 errors in this config: - optim.encoder_rate=-1"),
        (["data.limit_train=0"], "UserError: data.limit_train=0"),
        (["decoder.weights=pretrained", "decoder.scale=full", "decoder.path=/absent"], "/absent"),
        (["trainer.validations_per_epoch=99"], "trainer.validations_per_epoch=99 was requested, but an epoch has "),
    ],
)
def test_a_fit_that_dies_before_its_first_step_says_so_too(words, said, settings_of, tmp_path):
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", *words), tmp_path)
    failed = RunDir(tmp_path).read_result()
    assert failed["status"] == "failed"
    assert said in failed["error"]


def test_a_defect_of_ours_is_left_as_well(settings_of, tmp_path, monkeypatch):
    monkeypatch.setattr("warmstart.evaluation.judgement.scorer_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit.run(settings_of("debug=tiny"), tmp_path)
    assert RunDir(tmp_path).read_result()["error"] == "ZeroDivisionError: division by zero"


def test_an_interrupted_fit_leaves_no_result_that_could_be_taken_for_its_own(settings_of, tmp_path, monkeypatch):
    fit.run(settings_of("debug=tiny"), tmp_path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("warmstart.model.build.build_model", interrupt)
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
    assert "contains an unfinished run with another config" in outcome.stderr
    assert last.read_bytes() == before
    assert run_py(*words, "ckpt=new", cwd=tmp_path).returncode == 0
