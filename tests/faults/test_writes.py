"""A full disk, short writes, failed renames and failed syncs, for every kind of file that is written.

After each error there is a message with the file and the system's reason, status 2, no traceback, and no broken file
that looks complete. The same command then succeeds, with the results of a run without errors.
"""

import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny_gguf import write_tiny_gguf

from warmstart.runs.checkpoint_io import is_sound

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None and "CI" not in os.environ, reason="no C compiler is installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc"),
]
REASONS = {"full": "No space left on device", "rename": "Input/output error", "fsync": "Input/output error"}
FIT = (
    *("debug=tiny", "name=run", "encoder=roberta", "decoder=gpt2", "trainer.precision=32-true", "trainer.max_steps=2"),
    *("trainer.save_every=1", "data=files", "data.path=rows.jsonl", "evaluation.control_samples=0"),
)
SUMMARIZE = ("task=summarize", "ckpt=runs/run", "input=article.txt", "output=summary.txt")
EVALUATE = ("task=evaluate", "ckpt=runs/run", "name=again", "evaluation.control_samples=0")
EXPORT = ("task=export", "ckpt=runs/run", "output=model")
REPORT = ("task=report", "runs=[runs/run]")
SWEEP = ("-m", "seed=1", *FIT)
# The loss of its second step is made infinite, see faulty_runs.py.
INFINITE = (*FIT, "name=infinite", "trainer.skip_limit=1", "trainer.max_epochs=2")
GGUF = (*FIT, "name=gguf", "decoder=smollm2", "decoder.path=tiny.gguf", "decoder.weights=pretrained")
GGUF = (*GGUF, "decoder.scale=full")
SEARCH = ("-m", "hydra/sweeper=search", "hydra.sweeper.trials=1", "optim.new_rate=interval(0.1,0.2)", *FIT)
# For each kind of file: the command that writes it, and the pattern of its path.
FILES = {
    "last.ckpt": (FIT, "*/checkpoints/*last.ckpt*"),
    "best.ckpt": (FIT, "*/checkpoints/*best.ckpt*"),
    "SHA256SUMS": (FIT, "*/checkpoints/*SHA256SUMS*"),
    "unfinished": (FIT, "*/checkpoints/*unfinished*"),
    "tokenizers of the run": (FIT, "*/checkpoints/*tokenizers*"),
    "result.json": (FIT, "*/run/*result.json*"),
    "predictions.jsonl": (FIT, "*/run/*predictions.jsonl*"),
    "metrics.csv": (FIT, "*/run/*metrics.csv*"),
    "validation_samples.jsonl": (FIT, "*/run/*validation_samples.jsonl*"),
    "token cache": (FIT, "*/cache/tokens/*"),
    "store of rows": (FIT, "*/cache/texts/*"),
    "trained tokenizer": (FIT, "*/cache/tokenizers/*"),
    "export of a run": (FIT, "*/run/*export*"),
    "kept summaries": (EVALUATE, "*/cache/summaries/*.jsonl"),
    "export": (EXPORT, "*model*"),
    "report": (REPORT, "*report.html*"),
    "summary": (SUMMARIZE, "*summary.txt*"),
    "W&B's id": (SWEEP, "*wandb_id.txt*"),
    "multirun.yaml": (SEARCH, "*/multirun/run/*multirun.yaml*"),
    "search.yaml": (SEARCH, "*search.yaml*"),
    "search.db": (SEARCH, "*search.db*"),
    "nonfinite.jsonl": (INFINITE, "*nonfinite.jsonl"),
    "converted GGUF": (GGUF, "*/cache/gguf/*"),
    "config.yaml": (FIT, "*/run/.hydra/*config.yaml*"),
    "hydra.yaml": (FIT, "*/run/.hydra/*hydra.yaml*"),
    "overrides.yaml": (FIT, "*/run/.hydra/*overrides.yaml*"),
}
# Errors that cannot occur: files that only grow are not renamed.
NEVER = dict.fromkeys(("metrics.csv", "validation_samples.jsonl", "nonfinite.jsonl"), ("rename", "fsync"))
NEVER |= {"kept summaries": ("rename",), "search.db": ("rename",)}
COMMANDS = (FIT, EVALUATE, EXPORT, REPORT, SUMMARIZE, SWEEP, SEARCH, INFINITE, GGUF)
# What a message calls a file, if that is not its key in FILES.
NAMED = {"tokenizers of the run": "tokenizers", "token cache": "cache/tokens/", "export": "model"}
NAMED |= {"store of rows": "cache/texts/", "trained tokenizer": "cache/tokenizers/", "export of a run": "export"}
NAMED |= {"kept summaries": "cache/summaries/", "report": "report.html", "summary": "summary.txt"}
NAMED |= {"W&B's id": "wandb_id.txt", "converted GGUF": "cache/gguf/"}
COMPLETE = ("kept summaries", "export", "report", "summary")  # these need a complete run
TEXTS = ("predictions.jsonl", "validation_samples.jsonl", "nonfinite.jsonl", "rows.jsonl", "summary.txt")
TEXTS = (*TEXTS, "config.yaml", "overrides.yaml")


@pytest.fixture(scope="module")
def run_py(tmp_path_factory):
    """Return ``run_py(words, folder, fault, pattern)``, which gives status, output, and whether the error occurred."""
    place = tmp_path_factory.mktemp("faulty")
    library = place / "faulty_writes.so"
    subprocess.run(
        [COMPILER or "cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "faulty_writes.c", "-ldl"], check=True
    )
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, HERE / "faulty_runs.py"]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdin is not None
    assert server.stdout.readline() == "ready\n"
    numbers = itertools.count()

    def run(words, folder, fault=None, pattern="", kill_wandb=False):
        log, seen = place / f"{next(numbers)}.log", place / "seen"
        seen.unlink(missing_ok=True)
        # Each folder has a cache of its own, and the kernels would be compiled in each.
        given = {"WARMSTART_CACHE": str(folder / "cache"), "WARMSTART_KERNELS": "0"}
        if "name=infinite" in words:
            given["INFINITE_STEP"] = "1"
        if "logger=wandb" in words:
            given["WANDB_MODE"] = "offline"
        if kill_wandb:
            given["KILL_WANDB"] = "1"
        if fault:
            given |= {"FAULT": fault, "FAULT_AT": pattern, "FAULT_ROOT": str(folder), "FAULT_SEEN": str(seen)}
        asked = {"words": words, "folder": str(folder), "environment": given, "log": str(log)}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), log.read_text(errors="replace"), seen.exists()

    yield run
    server.stdin.close()
    server.wait(60)


@pytest.fixture(scope="module")
def whole(run_py, made_once):
    """Return a folder in which every command has run without an error."""

    def make(folder):
        inputs(folder)
        for words in COMMANDS:
            status, output, _ = run_py(words, folder)
            assert status == 0, output[-3000:]

    return made_once("whole", make)


def inputs(folder):
    rows = [
        {"document": f"The council of town {i} met on Monday. It voted {i} to 2.", "summary": f"Town {i} voted."}
        for i in range(40)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "article.txt").write_text("The river rose and the bridge was closed on Monday.")
    write_tiny_gguf(folder / "tiny.gguf")


@pytest.mark.parametrize("file", FILES)
def test_an_error_is_reported_and_the_same_command_then_succeeds(file, run_py, whole, tmp_path):
    words, pattern = FILES[file]
    inputs(tmp_path)
    if file in COMPLETE:
        shutil.copytree(whole / "runs" / "run", tmp_path / "runs" / "run")
        shutil.copytree(whole / "cache", tmp_path / "cache")
        (tmp_path / "runs" / "run" / "report.html").unlink()
    for fault in ("full", "rename", "fsync"):
        if fault in NEVER.get(file, ()):
            continue
        status, output, hit = run_py(words, tmp_path, fault, pattern)
        assert hit, fault
        assert "Traceback" not in output, output[-3000:]
        # A sweep lists its failed jobs and ends with status 1.
        assert status == 2 or (status == 1 and words[0] == "-m"), output[-3000:]
        if file == "search.db":
            assert "The search's study cannot be written" in output, output[-3000:]
        else:
            assert re.search(rf"{REASONS[fault]} \(\S*{re.escape(NAMED.get(file, file))}\S*\)", output), output[-3000:]
        complete_files_are_sound(tmp_path)
    status, output, _ = run_py(words, tmp_path)
    assert status == 0, output[-3000:]
    complete_files_are_sound(tmp_path)
    same_as(whole, tmp_path)


def test_short_writes_make_complete_files(run_py, whole, tmp_path):
    inputs(tmp_path)
    for words in COMMANDS:
        status, output, hit = run_py(words, tmp_path, "short", f"{tmp_path}/*")
        assert hit
        assert status == 0, output[-3000:]
    complete_files_are_sound(tmp_path)
    same_as(whole, tmp_path)


@pytest.mark.parametrize("what", ["log", "table of W&B", "process of W&B"])
def test_a_failing_log_or_wandb_does_not_end_a_run(what, run_py, whole, tmp_path):
    inputs(tmp_path)
    if what == "log":
        status, output, hit = run_py(FIT, tmp_path, "broken", "*cli.log")
        assert output.count("warmstart: the log cannot be written: Input/output error") == 1
    elif what == "table of W&B":
        status, output, hit = run_py((*FIT, "logger=wandb"), tmp_path, "broken", "*/media/table/*")
        assert "W&B: [Errno 5] Input/output error" in output
    else:
        status, output, _ = run_py((*FIT, "logger=wandb"), tmp_path, kill_wandb=True)
        hit = "W&B's process was killed" in output
        assert "The run continues" in output
    assert hit
    assert status == 0, output[-3000:]
    assert "Traceback" not in output, output[-3000:]
    if what != "log":  # W&B writes its own files, and the overrides differ
        shutil.rmtree(tmp_path / "runs" / "run" / "wandb")
        shutil.rmtree(tmp_path / "runs" / "run" / ".hydra")
    complete_files_are_sound(tmp_path)
    same_as(whole, tmp_path)


def complete_files_are_sound(folder):
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") and part.endswith((".partial", ".before", ".tmp")) for part in path.parts)
        if path.is_dir() or hidden:
            continue
        if path.suffix == ".ckpt":
            assert is_sound(path), path
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.name in ("predictions.jsonl", "rows.jsonl"):
            [json.loads(line) for line in path.read_text().splitlines()]
        elif path.name == "report.html":
            assert path.read_text().rstrip().endswith("</html>")
        elif path.name == "config.yaml":
            assert {"encoder", "seed", "trainer"} <= OmegaConf.load(path).keys(), path
        elif path.name in ("unfinished", "wandb_id.txt", "summary.txt"):
            assert path.read_text().strip(), path


def same_as(whole, folder):
    """Assert that both folders have equal weights, losses, predictions, samples, summaries and caches."""
    for path in folder.rglob("*"):
        other = whole / path.relative_to(folder)
        if not path.is_file() or not other.exists():
            continue
        if path.name in ("best.ckpt", "last.ckpt"):
            found, expected = (torch.load(one, weights_only=True)["state_dict"] for one in (path, other))
            assert all(torch.equal(found[name], expected[name]) for name in expected), path
        elif path.name == "metrics.csv":
            assert losses(path) == losses(other)
        elif path.name in TEXTS or path.suffix in (".npy", ".safetensors"):
            assert path.read_bytes() == other.read_bytes(), path
        elif path.name == "result.json":
            found, expected = (json.loads(one.read_text()) for one in (path, other))
            assert found["status"] == "complete", path
            assert found["metrics"] == expected["metrics"], path
    left = [path for path in folder.rglob(".*") if path.name.endswith((".partial", ".before", ".tmp"))]
    assert not left


def losses(path):
    with path.open(newline="") as file:
        return [(row["step"], row["train/loss"], row["validation/loss"]) for row in csv.DictReader(file)]
