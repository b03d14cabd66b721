"""A fit that learns from another run: what it trains on, what it leaves, and what is refused before it trains."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file
from test_module import reference_gradients
from tiny_training import STILL, Letters, Recorder, Rows, assert_same, batches, fit, in_parts, rows, tiny_model

from warmstart.cli.main import config_dir
from warmstart.config.schema import register, to_settings
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.sources.base import originals
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError
from warmstart.model.soft_targets import SoftTargets
from warmstart.runs.identity import config_hash
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.runs.writer import Writer
from warmstart.tasks import fit as fit_task
from warmstart.tasks.check import faults, run
from warmstart.training import distillation
from warmstart.training.distillation import soft_targets_of, teacher_record, with_teachers_summaries

TINY = ("encoder=minilm", "decoder=minilm", "debug=tiny", "data.limit_train=24", "data.limit_test=8")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The run directory of a tiny model that was trained for a few steps."""
    register()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)
    folder = tmp_path_factory.mktemp("teacher")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        words = [*TINY, "seed=7", "optim.new_rate=5e-3", f"data.cache_dir={folder / 'cache'}"]
        fit_task.run(to_settings(compose("config", overrides=words)), folder / "run")
    return folder / "run"


def soft(**options):
    return SoftTargets(tiny_model(seed=5).double(), 0.4, 2.0, **options)


def soft_reference(targets):
    model, data = tiny_model().double(), rows()
    model.training_loss(data["input_ids"], data["attention_mask"], data["labels"], soft_targets=targets).mean.backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("cut", [batches, lambda size: [in_parts(batch) for batch in batches(size)]])
@pytest.mark.parametrize(("size", "accumulate"), [(8, 1), (2, 4), (3, 3)])
def test_a_step_does_not_depend_on_how_it_is_cut(size, accumulate, cut, tmp_path):
    model, log = tiny_model().double(), Rows()
    module = Recorder(
        model, Letters(), STILL, {"max_new_tokens": 4}, total_steps=4, hparams={}, soft_targets=soft(rdrop=1.0)
    )
    fit(tmp_path, size, accumulate, module=module, train=cut(size), clip_norm=0.0, loggers=[log])
    assert_same(module.gradients[0], soft_reference(soft(rdrop=1.0)))
    assert (
        max(
            float((one - other).abs().max())
            for one, other in zip(module.gradients[0].values(), reference_gradients(rows()).values(), strict=True)
        )
        > 1e-3
    )  # not the gradients of the labels
    assert log.of("train/loss") == pytest.approx(log.of("validation/loss"), rel=1e-6)  # both are those of the labels


@pytest.mark.slow
def test_two_ranks_with_a_teacher_take_the_same_step_as_one(tmp_path):
    script = Path(__file__).with_name("two_ranks.py")
    outcome = subprocess.run(
        [sys.executable, script, tmp_path, "soft"], capture_output=True, text=True, check=False, timeout=240
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    found = torch.load(tmp_path / "two_ranks.pt", weights_only=True)
    assert_same(found["gradients"], soft_reference(soft(rdrop=1.0)))


def losses_of(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_a_distilled_fit_leaves_what_any_fit_leaves(teacher, settings_of, tmp_path):
    plain, distilled = tmp_path / "plain", tmp_path / "distilled"
    fit_task.run(settings_of(*TINY), plain)
    words = ("optim.distill=logits", f"optim.teacher={teacher}", "optim.rdrop=1.0", "bridge.dropout=0.1")
    fit_task.run(settings_of(*TINY, *words), distilled)
    results = [RunDir(run).read_result() for run in (plain, distilled)]
    assert results[1]["status"] == "complete"
    assert results[0]["parameters"] == results[1]["parameters"]
    saved = [torch.load(run / "checkpoints" / "best.ckpt", weights_only=True) for run in (plain, distilled)]
    assert saved[0]["state_dict"].keys() == saved[1]["state_dict"].keys()
    assert any(
        not torch.equal(saved[0]["state_dict"][name], saved[1]["state_dict"][name]) for name in saved[0]["state_dict"]
    )
    assert saved[1]["hyper_parameters"]["teacher"] == SavedModel(str(teacher)).digest
    assert "teacher" not in saved[0]["hyper_parameters"]
    exported = [load_file(next((run / "export").glob("*.safetensors"))) for run in (plain, distilled)]
    assert exported[0].keys() == exported[1].keys()
    first = [losses_of(run)[0] for run in (plain, distilled)]
    assert first[0] == pytest.approx(first[1], rel=0.02)  # before training: the labels' loss, with other dropout


def test_options_left_out_keep_the_hash_of_earlier_runs(settings_of):
    left_out = settings_of(*TINY)
    named = settings_of(*TINY, "optim.distill=none", "optim.teacher=null", "optim.rdrop=0", "optim.distill_weight=0.5")
    assert config_hash(left_out) == config_hash(named)
    assert config_hash(left_out) != config_hash(settings_of(*TINY, "optim.rdrop=1"))


def test_training_targets_are_the_summaries_of_the_teacher(teacher, settings_of, monkeypatch):
    settings = settings_of(*TINY, "optim.distill=beams", f"optim.teacher={teacher}", "generation.num_beams=2")
    source = load_source(settings.data)
    found = with_teachers_summaries(settings, source)
    examples = source.split("train")
    model, tokenizers, _ = SavedModel(str(teacher)).load()
    expected = Writer(model, tokenizers, settings).summaries_in_order([one.document for one in examples])
    assert [one.summary for one in found.split("train")] == expected
    assert [one[:2] for one in found.split("train")] == [one[:2] for one in examples]
    for split in ("validation", "test"):
        assert found.split(split) is source.split(split)
    assert list(originals(found.split("train"))) == list(examples)
    assert found.split_fingerprint("train") != source.split_fingerprint("train")

    def loads(*_):
        raise AssertionError("The teacher was loaded again.")

    monkeypatch.setattr(distillation, "_loaded", loads)
    assert with_teachers_summaries(settings, source).fingerprint() == found.fingerprint()
    with pytest.raises(AssertionError, match="again"):  # another search has other summaries
        with_teachers_summaries(replace(settings, generation=replace(settings.generation, num_beams=3)), source)
    assert with_teachers_summaries(settings_of(*TINY), source) is source


def test_interrupted_teacher_resumes(teacher, settings_of, monkeypatch):
    words = ("optim.distill=beams", f"optim.teacher={teacher}", "data.evaluation_max_tokens=400")
    settings = settings_of(*TINY, *words)
    source, made = load_source(settings.data), []
    loaded = distillation._loaded

    def interrupting(settings):
        trained = loaded(settings)
        generate = trained.model.generate

        def once(ids, **options):
            if len(made) == 2:
                raise RuntimeError("killed")
            made.append(len(ids))
            return generate(ids, **options)

        trained.model.generate = once
        return trained

    with monkeypatch.context() as patched:
        patched.setattr(distillation, "_loaded", interrupting)
        with pytest.raises(RuntimeError, match="killed"):
            with_teachers_summaries(settings, source)
    monkeypatch.setattr(SummarizationDataModule, "eval_dataloader", counting(made))
    found = with_teachers_summaries(settings, source)
    assert made[-1] == 24 - sum(made[:2])
    assert len(found.split("train")) == 24
    folder = Path(settings.data.cache_dir) / "teacher_summaries"
    assert not list(folder.glob("*.jsonl"))


def counting(made):
    original = SummarizationDataModule.eval_dataloader

    def loader(self, split, **options):
        batches = list(original(self, split, **options))
        made.append(sum(len(batch["index"]) for batch in batches))
        return batches

    return loader


def test_a_fit_on_the_summaries_of_a_teacher_is_scored_on_references(teacher, settings_of, tmp_path):
    words = ("optim.distill=beams", f"optim.teacher={teacher}")
    fit_task.run(settings_of(*TINY, *words), tmp_path / "run")
    references = {one.id: one.summary for one in load_source(settings_of(*TINY).data).split("test")}
    lines = RunDir(tmp_path / "run").predictions.read_text(encoding="utf-8").splitlines()
    assert {row["id"]: row["reference"] for row in map(json.loads, lines)} == references


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.distill=logits"], "optim.distill=logits needs a teacher. Set optim.teacher to a run directory"),
        (["optim.distill=beams"], "optim.distill=beams needs a teacher"),
        (["optim.teacher=."], "optim.teacher=. has no effect with optim.distill=none. Set optim.distill to logits"),
        (["optim.distill=logits", "optim.teacher=runs/no"], "optim.teacher=runs/no does not exist. Name a run"),
        (["optim.distill=beams", "optim.teacher=.", "data.objective=prefix"], "which data.objective=prefix makes"),
        (["optim.distill=logits", "optim.teacher=.", "decoder=ext"], "but decoder=ext selects sentences"),
        (["optim.rdrop=1", "decoder=ext"], "Leave optim.rdrop out."),
        (["optim.rdrop=1", "bridge.dropout=0.0"], "optim.rdrop=1 compares two passes with different dropout"),
        (["optim.distill_weight=1.5"], "optim.distill_weight=1.5 is invalid"),
        (["optim.distill_temperature=0"], "optim.distill_temperature=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message, settings_of):
    ext = "decoder=ext" in words
    tiny = (TINY[0], *TINY[2:]) if ext else TINY
    found = [fault for fault in faults(settings_of(*tiny, *words)) if message in fault]
    assert len(found) == 1


def test_rdrop_of_a_model_without_dropout_is_refused(settings_of):
    words = ("encoder=ettin", "decoder=llama3_2_1b", "debug=tiny", "optim.rdrop=1")
    (fault,) = faults(settings_of(*words))
    assert "Set bridge.dropout=0.1" in fault


def test_teacher_with_other_tokenizers_is_refused_before_training(teacher, settings_of, tmp_path):
    words = ("encoder=minilm", "decoder=gpt2", *TINY[2:], "optim.distill=logits", f"optim.teacher={teacher}")
    with pytest.raises(UserError, match=r"other tokenizers than this fit .decoder: .* set optim.distill=beams"):
        fit_task.run(settings_of(*words), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_check_names_a_teacher_with_other_tokenizers(teacher, settings_of):
    saved = teacher / "checkpoints" / "tokenizers"
    words = ("encoder=minilm", "decoder=minilm", "data=written", "optim.distill=logits", f"optim.teacher={teacher}")
    with pytest.raises(UserError, match="has other tokenizers than this fit"):
        run(settings_of(*words), saved)


def test_teacher_with_too_few_positions_is_refused(teacher, settings_of):
    settings = settings_of(*TINY, "optim.distill=logits", f"optim.teacher={teacher}")
    settings.data.max_source_length = 100_000
    with pytest.raises(UserError, match=r"its encoder has .* positions: set data.max_source_length="):
        soft_targets_of(settings, SavedModel(str(teacher)).load().model, SavedModel(str(teacher)).tokenizers())


def test_damaged_teacher_is_named_by_its_option(settings_of, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    settings = settings_of(*TINY, "optim.distill=beams", f"optim.teacher={tmp_path}")
    with pytest.raises(UserError, match=f"^optim.teacher={tmp_path}: .* contains neither an export"):
        with_teachers_summaries(settings, load_source(settings.data))


def test_a_fit_is_not_resumed_with_other_weights_of_its_teacher(teacher, settings_of, tmp_path):
    copy, student = tmp_path / "copy", tmp_path / "student"
    shutil.copytree(teacher, copy)
    settings = settings_of(*TINY, "optim.distill=logits", f"optim.teacher={copy}")
    fit_task.run(settings, student)
    resume = SavedModel(str(student))
    assert teacher_record(settings, resume) == {"teacher": SavedModel(str(copy)).digest}
    shutil.copy(student / "checkpoints" / "best.ckpt", copy / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"with other weights .* Restore them, or set ckpt=new"):
        teacher_record(settings, resume)
    moved = settings_of(*TINY, "optim.distill=logits", f"optim.teacher={teacher}")  # another teacher on purpose
    assert teacher_record(moved, resume) == {"teacher": SavedModel(str(teacher)).digest}


@pytest.mark.slow
def test_the_command_line_distills(teacher, run_py, tmp_path):
    words = [*TINY, "optim.distill=logits", f"optim.teacher={teacher}", "name=student"]
    check = run_py("task=check", *words, cwd=tmp_path)
    assert check.returncode == 0, check.stderr
    assert "Not included: the teacher, the process itself" in check.stdout
    outcome = run_py(*words, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert RunDir(tmp_path / "runs" / "student").read_result()["status"] == "complete"
    refused = run_py(*words[:-2], "name=other", cwd=tmp_path)
    assert refused.returncode == 2
    assert "optim.distill=logits needs a teacher" in refused.stderr
