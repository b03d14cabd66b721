"""W&B goes offline by itself, keeps its run, prompts nobody, and leaves nothing behind for the next job."""

import os

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger
from offline_wandb import records
from tiny_training import STILL, Letters, Recorder, fit, tiny_model

from warmstart.config.training import LoggerSettings
from warmstart.training.loggers import wandb as module
from warmstart.training.loggers.csv import MetricsCsv
from warmstart.training.loggers.wandb import _numbers, build_loggers, close_loggers, log_evaluation, wandb_mode

ON = LoggerSettings(name="wandb", wandb=True, project="p", group="sweep", tags=["mine"])


@pytest.fixture(autouse=True)
def _no_account(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    close_loggers(0)


def test_only_csv_without_wandb(tmp_path):
    (csv,) = build_loggers(LoggerSettings(), tmp_path, run_name="r", config={}, tags=[])
    assert isinstance(csv, MetricsCsv)
    close_loggers(1)  # nothing to close


def test_an_offline_run_holds_config_metrics_table_and_exit_code(tmp_path, caplog):
    loggers = build_loggers(ON, tmp_path, run_name="r", config={"optim": {"rate": 0.5}}, tags=["encoder=bert"])
    assert "no key is configured" in caplog.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in caplog.text
    fitted = Recorder(
        tiny_model(), Letters(), STILL, {"max_new_tokens": 3}, total_steps=2, hparams={}, references=["a", "b"]
    )
    fit(tmp_path, 4, 1, module=fitted, loggers=loggers, max_epochs=2)
    close_loggers(3)
    wandb.teardown()  # waits for W&B's own process, which may still be writing the file
    assert "WANDB_MODE" not in os.environ

    (folder,) = tmp_path.glob("wandb/offline-run-*")
    kept = list(records(folder))
    (run,) = [record.run for record in kept if record.HasField("run")]
    assert run.run_id == (tmp_path / "wandb_id.txt").read_text()
    assert (run.project, run.run_group, run.display_name, sorted(run.tags)) == (
        "p",
        "sweep",
        "r",
        ["encoder=bert", "mine"],
    )
    assert {item.key: item.value_json for item in run.config.update}["optim"] == '{"rate":0.5}'
    logged = [
        {" ".join([*item.nested_key] or [item.key]): item.value_json for item in record.history.item}
        for record in kept
        if record.HasField("history")
    ]
    assert len([row for row in logged if "train/loss" in row]) == 4
    tables = [row for row in logged if "validation/samples _type" in row]
    assert {row["validation/samples _type"] for row in tables} == {'"incremental-table-file"'}
    assert [row["validation/samples nrows"] for row in tables] == ["2", "4"]  # two after each validation
    (ended,) = [record.exit.exit_code for record in kept if record.HasField("exit")]
    assert ended == 3


def test_values_that_are_not_numbers_are_left_out_of_the_summary():
    result = {
        "rouge1": 0.2,
        "rouge1_ci": [float("nan")] * 2,
        "of": {"nll": float("inf"), "nll_ci": [1, 2]},
        "word": "x",
    }
    assert dict(_numbers(result)) == {"rouge1": 0.2, "of/nll_low": 1, "of/nll_high": 2}


def errors(caplog):
    """Ours: W&B logs its own surprises as well."""
    return [one for one in caplog.records if one.levelname == "ERROR" and one.name.startswith("warmstart")]


@pytest.mark.parametrize("project", ["a/b", "a:b", "p" * 200, "\ud800"])
def test_settings_that_wandb_rejects_do_not_end_the_run_and_are_logged_once(project, tmp_path, caplog):
    settings = LoggerSettings(name="wandb", wandb=True, project=project)
    (csv,) = build_loggers(settings, tmp_path, run_name="r", config={}, tags=[])
    build_loggers(settings, tmp_path, run_name="r", config={}, tags=[])
    assert isinstance(csv, MetricsCsv)
    (said,) = errors(caplog)
    assert "The run continues" in said.getMessage()
    log_evaluation(settings, tmp_path, None, {"config": {}, "metrics": {"test/rouge1": 1.0}})


@pytest.mark.parametrize("content", [b"a/b", b"", b" \n", b"\xff\xfe", b"a" * 5000, b"a\x1b[31m", b"a\nb", None])
def test_a_damaged_run_id_does_not_end_the_run_and_its_file_is_named(content, tmp_path, caplog):
    place = tmp_path / "wandb_id.txt"
    place.mkdir() if content is None else place.write_bytes(content)
    (csv,) = build_loggers(ON, tmp_path, run_name="r", config={}, tags=[])
    assert isinstance(csv, MetricsCsv)
    (said,) = errors(caplog)
    assert str(place) in said.getMessage()
    assert "\x1b" not in said.getMessage()
    log_evaluation(ON, tmp_path / "evaluation", tmp_path, {"config": {}, "metrics": {"test/rouge1": 1.0}})


def test_long_and_empty_tags_are_cut_and_dropped(tmp_path):
    settings = LoggerSettings(name="wandb", wandb=True, project="p", tags=["t" * 65, ""])
    tags = ["encoder=" + "long-name-" * 20]
    _, logger = build_loggers(settings, tmp_path, run_name="n" * 500, config={}, tags=tags)
    assert isinstance(logger, WandbLogger)
    assert sorted(logger.experiment.tags) == [tags[0][:64], "t" * 64]


def test_a_second_job_has_its_own_run_and_a_resumed_job_keeps_its_run(tmp_path):
    ids = []
    for folder in (tmp_path / "a", tmp_path / "b", tmp_path / "a"):
        logger = build_loggers(ON, folder, run_name="r", config={}, tags=[])[1]
        assert isinstance(logger, WandbLogger)
        ids.append(logger.experiment.id)
        close_loggers(0)
    assert ids[0] == ids[2] != ids[1]


def test_the_mode_follows_key_network_and_environment(tmp_path, monkeypatch):
    assert wandb_mode()[0] == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "k" * 40)
    monkeypatch.setattr(module, "_answers", lambda server: True)
    assert wandb_mode()[0] == "online"
    monkeypatch.setattr(module, "_answers", lambda server: False)
    assert wandb_mode() == ("offline", "https://api.wandb.ai does not answer")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_mode()[1].startswith("no key")
    monkeypatch.undo()
    for asked, mode in [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")]:
        monkeypatch.setenv("WANDB_MODE", asked)
        assert wandb_mode()[0] == mode


def test_a_server_that_does_not_answer_is_detected_quickly(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert not module._answers("http://127.0.0.1:9")
