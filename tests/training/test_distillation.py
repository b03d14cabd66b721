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
from warmstart.data.cleaning import steps_named
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.sources import base
from warmstart.data.sources.base import CleanedSplit, Example, LazyRows, Source, originals
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError
from warmstart.model.soft_targets import SoftTargets
from warmstart.runs.identity import config_hash
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.runs.writer import Writer
from warmstart.tasks import fit as fit_task
from warmstart.tasks import replay
from warmstart.tasks.check import faults, pair_without_values, run
from warmstart.training import distillation, teacher_summaries
from warmstart.training.distillation import check_teacher, teacher_record
from warmstart.training.teacher_summaries import with_teachers_summaries

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

    monkeypatch.setattr(teacher_summaries, "load_teacher", loads)
    assert with_teachers_summaries(settings, source).fingerprint() == found.fingerprint()
    with pytest.raises(AssertionError, match="again"):  # another search has other summaries
        with_teachers_summaries(replace(settings, generation=replace(settings.generation, num_beams=3)), source)
    assert with_teachers_summaries(settings_of(*TINY), source) is source


def test_interrupted_teacher_resumes(teacher, settings_of, monkeypatch):
    words = ("optim.distill=beams", f"optim.teacher={teacher}", "data.evaluation_max_tokens=400")
    settings = settings_of(*TINY, *words)
    source, made = load_source(settings.data), []
    loaded = teacher_summaries.load_teacher

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
        patched.setattr(teacher_summaries, "load_teacher", interrupting)
        with pytest.raises(RuntimeError, match="killed"):
            with_teachers_summaries(settings, source)
    monkeypatch.setattr(SummarizationDataModule, "eval_dataloader", counting(made))
    found = with_teachers_summaries(settings, source)
    assert made[-1] == 24 - sum(made[:2])
    assert len(found.split("train")) == 24
    folder = Path(settings.data.cache_dir) / "teacher_summaries"
    assert not list(folder.glob("*.jsonl"))


def test_finished_summaries_are_kept_until_they_are_written(teacher, settings_of, monkeypatch):
    settings, made = settings_of(*TINY, "optim.distill=beams", f"optim.teacher={teacher}"), []
    source = load_source(settings.data)
    with monkeypatch.context() as patched:
        patched.setattr(teacher_summaries, "_SUMMARIES", "no folder/summaries.jsonl")
        with pytest.raises(FileNotFoundError):
            with_teachers_summaries(settings, source)
    monkeypatch.setattr(SummarizationDataModule, "eval_dataloader", counting(made))
    with_teachers_summaries(settings, source)
    assert made == [0]


def test_generating_summaries_leaves_the_random_state(teacher, settings_of):
    """A fit that generates them draws the same new parameters as one that finds them in the cache."""
    settings = settings_of(*TINY, "optim.distill=beams", f"optim.teacher={teacher}")
    source, before = load_source(settings.data), torch.get_rng_state()
    with_teachers_summaries(settings, source)
    assert torch.equal(torch.get_rng_state(), before)


class OnDisk(LazyRows):
    """Rows with a hash of their contents, as those of a large file."""

    content = "hash"

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def _read(self, index):
        return self._rows[index]


def test_students_with_other_cleaning_do_not_share_the_teachers_tokens(teacher, settings_of, monkeypatch):
    monkeypatch.setattr(base, "_READ_AT_MOST", 1)
    settings = settings_of(*TINY, "optim.distill=beams", f"optim.teacher={teacher}")
    settings.data.clean = []
    raw = OnDisk([Example(str(i), f"By . Ann Lee . PUBLISHED: . Text {i} is short .", f"Text {i}.") for i in range(4)])
    monkeypatch.setattr(teacher_summaries, "_READING", ())  # the teacher cleans nothing, so the students' texts differ
    read = []
    original = teacher_summaries.load_teacher

    def noting(settings):
        trained = original(settings)
        generate = trained.model.generate
        trained.model.generate = lambda ids, **options: read.append(ids.shape) or generate(ids, **options)
        return trained

    monkeypatch.setattr(teacher_summaries, "load_teacher", noting)
    for clean in ([], ["strip_by_author"]):
        split = CleanedSplit(raw, range(4), steps_named(clean), training=True)
        with_teachers_summaries(settings, Source({"train": split}, name="own", report={}, steps=f"{clean}"))
    assert len(read) == 2
    assert read[0] != read[1]


def test_summaries_of_a_large_split_are_part_of_its_hash(monkeypatch):
    monkeypatch.setattr(base, "_READ_AT_MOST", 1)
    source = Source(
        {"train": OnDisk([Example("a", "A text.", "A."), Example("b", "B text.", "B.")])}, name="own", report={}
    )
    found = [source.with_summaries("train", summaries) for summaries in (["x", "y"], ["x", "z"], ["x", "y"])]
    first, other, again = (one.split_fingerprint("train") for one in found)
    assert first == again != other
    assert found[0].split("train").content.startswith("hash ")
    assert source.with_summaries("train", ["x", "y"]).split("train").content == found[0].split("train").content
    in_memory = Source({"train": list(source.split("train"))}, name="own", report={})
    assert in_memory.with_summaries("train", ["x", "y"]).split("train").content == ""


def test_each_rank_generates_on_its_own_gpu(settings_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert teacher_summaries._device(settings_of()) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert teacher_summaries._device(settings_of()) == torch.device("cuda", 3)
    assert teacher_summaries._device(settings_of("trainer.accelerator=cpu")) == torch.device("cpu")


def test_unrecorded_lengths_are_limited_to_the_teachers_positions(teacher, settings_of):
    config = SavedModel(str(teacher)).load().model.config
    config.encoder.max_position_embeddings = 40
    settings = settings_of(*TINY)
    assert teacher_summaries._reading(settings, {}, config).max_source_length == 40
    assert teacher_summaries._reading(settings, {"max_source_length": 30}, config).max_source_length == 30
    alone = pair_without_values(settings_of("encoder=none", "decoder=gpt2", "debug=tiny")).config
    settings.data.max_source_length, settings.data.source_windows = 5000, 2
    reading = teacher_summaries._reading(settings, {}, alone)
    assert reading.max_source_length == alone.decoder.max_position_embeddings - settings.generation.max_new_tokens
    assert reading.source_windows == 1


def test_teacher_without_an_encoder_cannot_read_windows(settings_of):
    config = pair_without_values(settings_of("encoder=none", "decoder=gpt2", "debug=tiny")).config
    with pytest.raises(UserError, match=r"cannot read data.source_windows=2: set optim.distill=beams"):
        distillation._check_lengths(settings_of(*TINY, "data.source_windows=2"), config)


@pytest.mark.parametrize("part", [".", "checkpoints/best.ckpt", "export"])
def test_a_fit_does_not_replace_its_teacher(part, teacher, settings_of):
    words = ("optim.distill=beams", f"optim.teacher={teacher / part}", "ckpt=new")
    before = SavedModel(str(teacher)).digest
    with pytest.raises(UserError, match=r"the folder that this fit writes.* Set another name="):
        fit_task.run(settings_of(*TINY, *words), teacher)
    assert SavedModel(str(teacher)).digest == before
    assert RunDir(teacher).is_complete


def test_a_skipped_step_is_replayed_with_its_teacher(teacher, settings_of, tmp_path, capsys):
    copy, student = tmp_path / "copy", tmp_path / "student"
    shutil.copytree(teacher, copy)
    words = ("optim.distill=logits", f"optim.teacher={copy}", "optim.distill_weight=1.0")
    settings = settings_of(*TINY, *words, f"ckpt={student}")
    fit_task.run(settings_of(*TINY, *words), student)
    (student / "nonfinite.jsonl").write_text(json.dumps({"step": 1, "epoch": 0, "examples": [0, 3]}) + "\n")
    capsys.readouterr()
    outputs = []
    for change in (lambda: None, lambda: shutil.rmtree(copy)):
        change()
        replay.run(settings, student)
        outputs.append(capsys.readouterr().out)
    assert "replayed without" not in outputs[0]
    assert (
        f"optim.teacher={copy} is no longer there: the steps are replayed without its part of the loss." in outputs[1]
    )
    losses = [float(output.split("fp32: finite: loss ")[1].split(",")[0]) for output in outputs]
    assert losses[0] < losses[1] / 2  # the divergence from a similar model, and the loss of the labels


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
        (
            ["optim.distill=logits", "optim.teacher=runs/no"],
            "optim.teacher=runs/no was requested, but there is no such file",
        ),
        (["optim.distill=logits", "optim.teacher=tests"], "optim.teacher=tests: tests contains neither an export"),
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
    assert not list((tmp_path / "cache").rglob("*.npy"))  # nothing was tokenized


def test_check_names_a_teacher_with_other_tokenizers(teacher, settings_of):
    saved = teacher / "checkpoints" / "tokenizers"
    words = ("encoder=minilm", "decoder=minilm", "data=written", "optim.distill=logits", f"optim.teacher={teacher}")
    with pytest.raises(UserError, match="has other tokenizers than this fit"):
        run(settings_of(*words), saved)


def test_teacher_with_too_few_positions_is_refused(teacher, settings_of):
    settings = settings_of(*TINY, "optim.distill=logits", f"optim.teacher={teacher}")
    settings.data.max_source_length = 100_000
    with pytest.raises(UserError, match=r"its encoder has .* positions: set data.max_source_length="):
        check_teacher(settings, SavedModel(str(teacher)).tokenizers())


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
    resumed = settings_of(*TINY, "optim.distill=beams", f"optim.teacher={copy}", "ckpt=last")
    with pytest.raises(UserError, match="with other weights"):  # before any summary of the changed teacher
        fit_task.run(resumed, student)
    assert not (Path(settings.data.cache_dir) / "teacher_summaries").exists()
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
