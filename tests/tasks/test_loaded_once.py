"""A checkpoint is read once and hashed once in a task: both take minutes where it has billions of weights."""

import hashlib
from collections import Counter

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from warmstart.cli import main
from warmstart.tasks import fit

WORDS = ("debug=tiny", "trainer.max_steps=2", "evaluation.control_samples=0")


@pytest.fixture
def reads(monkeypatch):
    """Counts how often each file is read by ``torch.load`` and hashed as a whole."""
    counts = Counter()
    load, digest = torch.load, hashlib.file_digest

    def counted_load(file, *args, **kwargs):
        counts["loaded", str(file)] += 1
        return load(file, *args, **kwargs)

    def counted_digest(file, *args, **kwargs):
        counts["hashed", str(file.name)] += 1
        return digest(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", counted_load)
    monkeypatch.setattr(hashlib, "file_digest", counted_digest)
    return counts


def run_task(monkeypatch, folder, *words):
    """Run a task as the command line does, from the composed config on."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(main.config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=[*words], return_hydra_config=True)
    hydra = OmegaConf.create(OmegaConf.to_container(cfg.hydra, resolve=False))
    hydra.runtime.output_dir = str(folder)
    hydra.mode = "RUN"
    hydra.overrides.task = list(words)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return main.run_task(cfg)


def test_a_fit_reads_its_best_checkpoint_once_for_the_test(settings_of, tmp_path, reads):
    fit.run(settings_of(*WORDS), tmp_path / "run")
    best = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert {key: n for key, n in reads.items() if key[1].endswith(".ckpt")} == {
        ("loaded", best): 1,
        ("hashed", best): 1,
    }


@pytest.mark.parametrize("task", ["evaluate", "export"])
def test_a_task_reads_the_checkpoint_that_it_is_given_once(task, settings_of, tmp_path, reads, monkeypatch):
    fit.run(settings_of(*WORDS, "evaluation.test=false"), tmp_path / "run")
    reads.clear()
    words = (f"ckpt={tmp_path / 'run'}", f"data.cache_dir={tmp_path / 'cache'}", "evaluation.control_samples=0")
    run_task(monkeypatch, tmp_path / "of-run", f"task={task}", *words)
    best = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert reads == {("loaded", best): 1, ("hashed", best): 1}


def test_a_resumed_fit_is_checked_by_one_read_of_the_checkpoint_and_trained_from_another(settings_of, tmp_path, reads):
    fit.run(settings_of(*WORDS, "evaluation.test=false"), tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    reads.clear()
    more = ("debug=tiny", "trainer.max_steps=3", "trainer.max_epochs=9", "evaluation.test=false", f"ckpt={last}")
    fit.run(settings_of(*more), tmp_path / "on")
    assert reads["loaded", str(last)] == 2  # Lightning reads the second time
