"""Fixtures of all tests: no hub, one thread, a fixed seed."""

import os

# Torch and transformers read these once, on import.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import preloaded
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from warmstart.cli.main import config_dir
from warmstart.config.schema import Config, register, to_settings

ROOT = Path(__file__).parents[1]

# A shell lets what it starts in the background ignore Ctrl-C, and each program that a test starts would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_seed():
    random.seed(0)
    # Imports nothing: most tests without torch would become slow.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _distributed_environment_is_restored():
    """Undo what Lightning leaves in the environment: processes of a later test would try to join its process group."""
    names = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    before = {name: os.environ.get(name) for name in names}
    yield
    if "torch" in sys.modules and sys.modules["torch"].distributed.is_initialized():
        sys.modules["torch"].distributed.destroy_process_group()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def settings_of(tmp_path):
    """Return a function that composes overrides, as in ``settings_of("debug=tiny")``, with a temporary cache."""
    register()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)

    def make(*overrides: str) -> Config:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return to_settings(compose("config", overrides=[*overrides, f"data.cache_dir={tmp_path / 'cache'}"]))

    return make


@pytest.fixture
def run_py():
    """Return a function that runs ``run.py``, or ``script``, to its end: ``run_py("task=check", cwd=folder)``."""

    def run(*words: str, cwd: Path, script: Path = preloaded.RUN) -> subprocess.CompletedProcess:
        return preloaded.run(words, cwd=cwd, timeout=300, script=script)

    return run


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return ``made_once(name, make)``: a folder that ``make(folder)`` fills, once for all workers of the test run.

    The worker that comes first makes it, and the others wait. What a session fixture makes, each worker makes again.
    """
    from warmstart.locks import locked

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, complete = shared / name, shared / f"{name}.complete"
        with locked(shared / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a worker that failed
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def built_kernels():
    """Build the kernels for this machine's CPU once."""
    from warmstart import cpu

    cpu.build()


@pytest.fixture(scope="session")
def examples():
    """Return examples with whole sentences: the synthetic texts for training."""
    from warmstart.config.data import DataKind, DataSettings
    from warmstart.data.sources.load import load_source

    return list(load_source(DataSettings(name="written", kind=DataKind.written)).split("train"))


@pytest.fixture(scope="session")
def documents(examples):
    return [example.document for example in examples]


@pytest.fixture(scope="session")
def references(examples):
    return [example.summary for example in examples]
