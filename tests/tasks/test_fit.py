"""What a fit begins from, and what it leaves of earlier fits in its folder."""

import csv
import json
import shutil

import pytest
import torch

from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError
from warmstart.runs import resuming
from warmstart.runs.explain import status_of
from warmstart.runs.identity import config_hash
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import evaluate, fit
from warmstart.training import step_timing


def steps_of(run_dir, name):
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)["global_step"]


def test_a_fit_from_another_runs_checkpoint_reports_nothing_of_the_run_before_it(settings_of, tmp_path):
    before, other = tmp_path / "before", tmp_path / "other"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=9", "trainer.max_epochs=9", "optim.new_rate=5e-3"), before)
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2", "seed=2"), other)
    first = RunDir(before).read_result()
    (before / "nonfinite.jsonl").write_text("")
    last = other / "checkpoints" / "last.ckpt"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=3", "seed=2", f"ckpt={last}"), before)
    assert (steps_of(before, "last.ckpt"), steps_of(before, "best.ckpt")) == (3, 3)
    result = RunDir(before).read_result()
    assert (result["steps"], result["resumed"]) == (3, True)
    assert result["validation"]["best"] > first["validation"]["best"]
    assert not (before / "checkpoints" / "last-1.ckpt").exists()
    assert not (before / "nonfinite.jsonl").exists()
    assert steps_of(other, "last.ckpt") == 2  # what it began from stays


def test_a_run_directory_is_resumed_from_its_newest_sound_checkpoint(settings_of, tmp_path):
    run, on = tmp_path / "run", tmp_path / "on"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), run)
    more = ("debug=tiny", "trainer.max_steps=4", "trainer.max_epochs=9")
    fit.run(settings_of(*more, f"ckpt={run}"), on)
    assert (RunDir(on).read_result()["steps"], RunDir(on).read_result()["resumed"]) == (4, True)
    fit.run(settings_of(*more, f"ckpt={run}"), run)  # in place, too
    assert (RunDir(run).read_result()["steps"], RunDir(run).read_result()["resumed"]) == (4, True)


def test_the_same_command_goes_on_with_what_it_began_from_another_run(settings_of, tmp_path, monkeypatch, caplog):
    other, run = tmp_path / "other", tmp_path / "run"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), other)
    command = settings_of("debug=tiny", "trainer.max_steps=4", "trainer.max_epochs=9", f"ckpt={other}")
    interrupted(command, run, monkeypatch)
    assert steps_of(run, "last.ckpt") == 4
    with pytest.raises(UserError, match="with another config, or from another checkpoint"):
        fit.run(settings_of("debug=tiny", "trainer.max_steps=4", "trainer.max_epochs=9"), run)
    with caplog.at_level("INFO"):
        fit.run(command, run)
    assert f"Resuming from {run}" in caplog.text
    assert RunDir(run).read_result()["status"] == "complete"


def interrupted(command, run_dir, monkeypatch):
    """A fit that ends after training, before its result is written."""

    def preempted(*_):
        raise RuntimeError("preempted")

    with monkeypatch.context() as patched:
        patched.setattr("warmstart.tasks.evaluate.score", preempted)
        with pytest.raises(RuntimeError, match="preempted"):
            fit.run(command, run_dir)


def vocabularies_of(run_dir):
    pair = TokenizerPair.load(run_dir / "checkpoints" / "tokenizers")
    return pair.source.get_vocab(), pair.target.get_vocab()


def rows_about(subject):
    lines = [{"document": f"The {subject} number {i} is late.", "summary": f"{subject} {i}"} for i in range(60)]
    return "\n".join(map(json.dumps, lines))


def test_a_resumed_fit_keeps_the_tokenizers_that_it_began_with(settings_of, tmp_path, monkeypatch):
    rows, run = tmp_path / "rows.jsonl", tmp_path / "run"
    rows.write_text(rows_about("ferry"))
    words = ("debug=tiny", "data=files", f"data.path={rows}", "trainer.max_steps=2", "trainer.max_epochs=9")
    interrupted(settings_of(*words), run, monkeypatch)
    began_with = vocabularies_of(run)
    assert "ferry" in began_with[0]
    # A tokenizer that were trained now would be another one.
    rows.write_text(rows_about("bridge"))
    fit.run(settings_of(*words), run)
    assert RunDir(run).read_result()["resumed"]
    assert vocabularies_of(run) == began_with


def test_a_fit_refuses_to_resume_without_its_tokenizers_or_with_others(settings_of, tmp_path, monkeypatch):
    rows, run, other = tmp_path / "rows.jsonl", tmp_path / "run", tmp_path / "other"
    for folder, subject in ((run, "ferry"), (other, "bridge")):
        rows.write_text(rows_about(subject))
        command = settings_of("debug=tiny", "data=files", f"data.path={rows}", "trainer.max_steps=2")
        interrupted(command, folder, monkeypatch)
    own = run / "checkpoints" / "tokenizers"
    shutil.rmtree(own)
    with pytest.raises(UserError, match="tokenizers that it was trained with are missing"):
        fit.run(command, run)
    shutil.copytree(other / "checkpoints" / "tokenizers", own)
    with pytest.raises(UserError, match="was trained with other vocabularies"):
        fit.run(command, run)


def test_a_checkpoint_after_which_nothing_is_left_to_train_is_refused(settings_of, tmp_path):
    other = tmp_path / "other"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), other)
    with pytest.raises(UserError, match=r"has already taken 2 steps .* nothing would be trained"):
        fit.run(settings_of("debug=tiny", "trainer.max_steps=2", "seed=5", f"ckpt={other}"), tmp_path / "run")


@pytest.mark.parametrize(
    ("ckpt", "said"),
    [
        (
            "empty",
            "ckpt={0} was requested, but {0} has no checkpoints/last.ckpt. Name a run or a .ckpt file",
        ),
        ("absent", "ckpt={0} was requested, but {0} does not exist. Name a run or a .ckpt file"),
        ("last", "ckpt=last was requested, but .*run does not exist. Set name= to the run to resume"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_said_with_what_to_name(ckpt, said, settings_of, tmp_path):
    (tmp_path / "empty").mkdir()
    asked = ckpt if ckpt == "last" else tmp_path / ckpt
    with pytest.raises(UserError, match=said.format(asked)):
        fit.run(settings_of("debug=tiny", f"ckpt={asked}"), tmp_path / "run")
    assert RunDir(tmp_path / "run").read_result()["status"] == "failed"


@pytest.mark.parametrize("word", ["optim.encoder_rate=-1", "ckpt=absent.ckpt", "+trainer.extra.no_such=1"])
def test_a_mistyped_word_leaves_the_result_of_a_complete_run(word, settings_of, tmp_path):
    complete = {"status": "complete", "metrics": {"test/nll": 1.0}}
    (tmp_path / "result.json").write_text(json.dumps(complete))
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", word), tmp_path)
    assert RunDir(tmp_path).read_result() == complete
    assert not (tmp_path / "result.previous.json").exists()


def test_a_mistyped_word_is_said_instead_of_an_earlier_failure(settings_of, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"status": "failed", "error": "earlier"}))
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", "optim.encoder_rate=-1"), tmp_path)
    assert "optim.encoder_rate=-1" in RunDir(tmp_path).read_result()["error"]


def test_fewer_validation_examples_than_devices_are_said_with_both_figures(run_py, tmp_path):
    words = ("debug=tiny", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
    outcome = run_py(*words, "data.limit_validation=1", cwd=tmp_path)
    assert outcome.returncode == 2
    assert (
        "2 devices were requested (trainer.devices times trainer.nodes), but the validation split has 1"
        in outcome.stderr
    )
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(("begun", "goes_on"), [(128, 512), (512, 128)])
def test_the_schedule_of_a_fit_in_other_batches_ends_with_it(begun, goes_on, settings_of, tmp_path):
    words = ("debug=tiny", "trainer.max_epochs=3", "trainer.log_every=1", "optim.warmup_steps=1", "optim.new_rate=1e-2")
    fit.run(settings_of(*words, f"data.batch.max_tokens={begun}", "trainer.max_steps=14"), tmp_path)
    words += ("trainer.max_steps=-1", "ckpt=last")
    fit.run(settings_of(*words, f"data.batch.max_tokens={goes_on}"), tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rates = [float(row["rate/new"]) for row in csv.DictReader(file) if row["rate/new"]]
    assert len(rates) == RunDir(tmp_path).read_result()["steps"] > 14
    steps_left = [rate / rates[-1] for rate in rates[14:]]  # linear, to zero at the step after the last
    assert steps_left == pytest.approx(list(range(len(steps_left), 0, -1)), rel=1e-4)
    assert rates[-1] == pytest.approx(1e-2 / (len(rates) - 1), rel=1e-4)


def test_a_complete_run_of_another_config_is_asked_about(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny"), tmp_path)
    before = (tmp_path / "checkpoints" / "best.ckpt").read_bytes()
    with pytest.raises(UserError, match="complete run with another config"):
        fit.run(settings_of("debug=tiny", "seed=2"), tmp_path)
    assert (tmp_path / "checkpoints" / "best.ckpt").read_bytes() == before
    assert RunDir(tmp_path).read_result()["status"] == "complete"
    fit.run(settings_of("debug=tiny"), tmp_path)  # the same again
    fit.run(settings_of("debug=tiny", "seed=2", "ckpt=new"), tmp_path)
    assert RunDir(tmp_path).read_result()["seed"] == 2


def test_back_from_the_queue_a_fit_that_began_anew_goes_on(settings_of, tmp_path, monkeypatch):
    settings, folder = settings_of("debug=tiny", "ckpt=new"), tmp_path / "checkpoints"
    fit.run(settings, tmp_path)
    (folder / "unfinished").write_text(f"{RunDir(tmp_path).read_result()['config_hash']}\n")
    (tmp_path / "result.json").unlink()
    assert resuming.checkpoint_to_resume(settings, RunDir(tmp_path), config_hash(settings)) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resuming.checkpoint_to_resume(settings, RunDir(tmp_path), config_hash(settings)) is not None
    (folder / "unfinished").write_text("another's\n")  # left the queue before it had begun
    assert resuming.checkpoint_to_resume(settings, RunDir(tmp_path), config_hash(settings)) is None


HINDI = "दिल्ली में आज {} बजे वर्षा हुई। मुंबई में धूप थी। पुणे में हवा चली।"


def hindi_file(folder):
    """Documents and summaries of which ROUGE reads nothing but a number."""
    rows = [{"document": HINDI.format(i), "summary": f"दिल्ली में {i} बजे वर्षा"} for i in range(20)]
    path = folder / "hindi.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_that_rouge_cannot_read_end_the_run_before_training(settings_of, tmp_path):
    words = ("debug=tiny", "data=files", f"data.path={hindi_file(tmp_path)}")
    with pytest.raises(
        UserError, match="ignore 100% of the letters in the validation references, such as 'दिल्ली में"
    ) as refused:
        fit.run(settings_of(*words), tmp_path / "run")
    assert status_of(refused.value) == 2
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert RunDir(tmp_path / "run").read_result()["status"] == "failed"
    with pytest.raises(UserError, match="letters in the test references"):
        fit.run(settings_of(*words, "trainer.validation_samples=0"), tmp_path / "run")
    without_rouge = ("evaluation.test=false", "trainer.validation_samples=0")  # the way on that the message names
    fit.run(settings_of(*words, *without_rouge), tmp_path / "run")
    assert RunDir(tmp_path / "run").read_result()["status"] == "complete"
    with pytest.raises(UserError, match="letters in the test references"):
        evaluate.run(settings_of(*words, f"ckpt={tmp_path / 'run'}"), tmp_path / "scored")


def test_a_monitored_metric_that_is_left_out_ends_the_run_before_training(settings_of, tmp_path, monkeypatch):
    monkeypatch.setattr("warmstart.evaluation.metrics.bleu.find_spec", lambda name: None)
    words = ("debug=tiny", "data.language=ja", "evaluation.metrics=[bleu,chrf]")
    with pytest.raises(UserError, match=r"monitor=validation/bleu .*MeCab.*Set trainer\.monitor") as refused:
        fit.run(settings_of(*words, "trainer.monitor=validation/bleu", "trainer.monitor_mode=max"), tmp_path / "run")
    assert status_of(refused.value) == 2
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_fit_that_scores_nothing_needs_no_metric_of_its_language(settings_of, tmp_path):
    words = ("debug=tiny", "data.language=ar", "evaluation.metrics=[entity_precision]")
    with pytest.raises(UserError, match="compares nothing in data"):
        fit.run(settings_of(*words), tmp_path / "scored")
    fit.run(
        settings_of(*words, "evaluation.test=false", "trainer.validation_samples=0", "trainer.monitor=validation/loss"),
        tmp_path / "run",
    )
    assert RunDir(tmp_path / "run").read_result()["status"] == "complete"


TEXTS = [{"document": f"The river rose on day {i}. It rained.", "summary": f"Rain on day {i}."} for i in range(40)]


def test_a_fit_without_the_test_split_neither_reads_nor_scores_it(settings_of, tmp_path, capsys):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    (tmp_path / "test.jsonl").write_text("not json\n")
    words = [
        "debug=tiny",
        "data=files",
        *(f"data.{split}_path={tmp_path}/{split}.jsonl" for split in ("train", "test")),
    ]
    with pytest.raises(UserError, match=r"test\.jsonl"):
        fit.run(settings_of(*words), tmp_path / "tested")
    run = tmp_path / "run"
    run.mkdir()
    (run / "predictions.jsonl").write_text("of an earlier run\n")
    best = fit.run(settings_of(*words, "evaluation.test=false"), run)
    result = RunDir(run).read_result()
    metrics = result["metrics"]
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert result["status"] == "complete"
    assert not any(name.startswith("test/") for name in metrics)
    assert metrics["validation/examples"] == len(rows) == result["rows"]["validation"]["kept"]
    assert metrics["validation/rouge1"] == pytest.approx(sum(row["rouge1"] for row in rows) / len(rows), abs=1e-3)
    assert len(metrics["validation/rouge1_ci"]) == 2
    assert {"lead1", "lead3"} <= result["baselines"].keys()
    assert result["controls"].keys() == {"shuffled_document", "decoder_alone"}
    assert result["test_looks"] == 0
    assert result["validation"]["best"] == pytest.approx(best)
    assert result["checkpoint"]["name"] == "best.ckpt"
    assert sorted(result["rows"]) == ["reader", "train", "validation"]
    assert result["seconds"].keys() == {"fit", "validation", "total"}
    assert f"intervals on {len(rows)} validation examples" in (run / "export" / "README.md").read_text()
    printed = capsys.readouterr().out
    assert f"on {len(rows)} validation examples" in printed
    assert "The test split was not read (evaluation.test=false).\nTo score it: " in printed
    curve = [row["validation/rouge1"] for row in RunDir(run).read_metrics() if row.get("validation/rouge1")]
    assert len(curve) == len([row for row in RunDir(run).read_metrics() if row["validation/loss"]])

    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS[:9]))
    evaluate.run(settings_of(*words, "evaluation.test=false", f"ckpt={run}"), tmp_path / "scored")
    scored = RunDir(tmp_path / "scored").read_result()
    assert scored["metrics"]["test/examples"] == 9
    assert {name: value for name, value in scored["metrics"].items() if name.startswith("validation/")} == metrics
    assert scored["validation"] == result["validation"]
    assert "on 9 test examples" in capsys.readouterr().out


def test_rows_of_the_test_split_are_trained_on_no_more_where_it_is_not_scored(settings_of, tmp_path):
    rows = [{"document": f"The river rose on day {i}. It rained.", "summary": f"Rain on day {i}."} for i in range(90)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = settings_of("debug=tiny", "data=files", f"data.path={tmp_path}/all.jsonl").data
    every, some = load_source(settings), load_source(settings, ("train", "validation"))
    assert some.names == ("train", "validation")
    assert [list(some.split(name)) for name in some.names] == [list(every.split(name)) for name in some.names]


def test_a_fit_with_a_budget_ends_its_schedule_within_it_and_keeps_its_plan_when_it_resumes(
    settings_of, tmp_path, monkeypatch
):
    command = settings_of(
        *("debug=tiny", "trainer.max_steps=8", "trainer.max_epochs=9", "trainer.budget_minutes=1"),
        *("trainer.measure_threads=true", "trainer.accelerator=cpu"),
    )
    monkeypatch.setattr(step_timing, "step_seconds", lambda *given: dict.fromkeys(given[5], 12.0))
    interrupted(command, tmp_path / "run", monkeypatch)  # of the five steps that a minute allows
    monkeypatch.setattr(step_timing, "step_seconds", lambda *given: pytest.fail("the plan was made again"))
    fit.run(command, tmp_path / "run")
    result = RunDir(tmp_path / "run").read_result()
    assert (result["steps"], result["resumed"]) == (5, True)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["hyper_parameters"]["plan"]["steps"] == 5
    assert kept["lr_schedulers"][0]["_last_lr"] == [0.0] * len(kept["lr_schedulers"][0]["_last_lr"])


def test_validations_score_whole_references_even_where_labels_are_cut(settings_of, tmp_path):
    settings = settings_of("debug=tiny", "data.max_target_length=4", "trainer.max_steps=1")
    fit.run(settings, tmp_path / "run")
    rows = [json.loads(line) for line in RunDir(tmp_path / "run").samples.read_text().splitlines()]
    examples = load_source(settings.data).split("validation")
    assert [row["reference"] for row in rows] == [examples[row["index"]].summary for row in rows]
    assert rows
