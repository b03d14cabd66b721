"""A loader blames a file only for what is wrong with that file."""

import errno
import sys
import zipfile

import pytest
import torch

from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.runs.checkpoint_io import AtomicCheckpointIO, is_sound
from warmstart.runs.explain import explain, status_of
from warmstart.runs.load import load_trained
from warmstart.runs.run_dir import CheckpointDir
from warmstart.tasks import evaluate, export, fit, summarize

FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.fixture
def run(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny", "trainer.max_steps=1", "evaluation.control_samples=0"), tmp_path / "run")
    return tmp_path / "run"


def test_what_the_machine_lacks_is_not_blamed_on_the_file(run, monkeypatch):
    last = run / "checkpoints" / "last.ckpt"
    readers = {
        (torch, "load"): (lambda: load_trained(str(run)), lambda: AtomicCheckpointIO().load_checkpoint(last)),
        (EncoderDecoderModel, "load_state_dict"): (lambda: load_trained(str(run)),),
        (EncoderDecoderModel, "from_pretrained"): (lambda: load_trained(str(run / "export")),),
        (zipfile, "ZipFile"): (lambda: is_sound(last),),
    }
    readers[sys.modules["transformers"].AutoTokenizer, "from_pretrained"] = (
        lambda: TokenizerPair.load(last.parent / "tokenizers"),
    )
    CheckpointDir(last.parent).sums.unlink()
    for (owner, name), calls in readers.items():
        for failure in FAILURES:

            def fail(*_, failure=failure, **__):
                raise failure

            with monkeypatch.context() as patched:
                patched.setattr(owner, name, fail)
                for call in calls:
                    with pytest.raises(type(failure)) as raised:
                        call()
                    assert raised.value is failure, (name, failure)
        assert all(explain(failure) for failure in FAILURES)


def test_a_missing_peft_is_named_and_the_checkpoint_is_not_blamed(settings_of, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    words = ("debug=tiny", "trainer.max_steps=1", "evaluation.control_samples=0", "bridge.lora=decoder")
    fit.run(settings_of(*words), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"^bridge.lora needs peft, which is not installed"):
        load_trained(str(tmp_path / "run"))


def test_a_defect_of_ours_keeps_its_traceback(run, monkeypatch):
    def defect(*_, **__):
        raise AttributeError("a defect")

    monkeypatch.setattr(EncoderDecoderModel, "load_state_dict", defect)
    with pytest.raises(AttributeError, match="a defect") as raised:  # its checksum agrees
        load_trained(str(run))
    assert status_of(raised.value) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_write_nothing(value, run, settings_of, tmp_path):
    for file in run.glob("checkpoints/best.ckpt"):
        checkpoint = torch.load(file, weights_only=True)
        checkpoint["state_dict"]["model.decoder.transformer.wpe.weight"][0, 0] = value
        AtomicCheckpointIO().save_checkpoint(checkpoint, file)
    (tmp_path / "article.txt").write_text("The river rose.")
    said = r"1 of its tensors contain NaN or infinity, such as decoder\.transformer\.wpe\.weight: training diverged"
    words = ("debug=tiny", "evaluation.control_samples=0", f"ckpt={run}")
    with pytest.raises(UserError, match=said):
        summarize.run(
            settings_of(*words, f"input={tmp_path / 'article.txt'}", f"output={tmp_path / 'summary.txt'}"), tmp_path
        )
    with pytest.raises(UserError, match=said):
        export.run(settings_of(*words, f"output={tmp_path / 'model'}"), tmp_path)
    with pytest.raises(UserError, match=said):
        evaluate.run(settings_of(*words), tmp_path / "scored")
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert left <= {"article.txt", "run", "scored"}
    assert not (tmp_path / "scored" / "result.json").exists()
    assert not (tmp_path / "scored" / "export").exists()
