"""What a result is a result of: its config's hash, the command, the seed, the versions and the commit."""

import hashlib
import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from warmstart.config.schema import Config, plain
from warmstart.damaged_files import DamagedFile, read_yaml
from warmstart.errors import UserError
from warmstart.runs.result import CHANGES_NO_NUMBER
from warmstart.runs.run_dir import RunDir, SweepDir

LONGEST_NAME = 128  # characters that W&B takes
VERSIONS = ("torch", "lightning", "transformers", "hydra-core", "warmstart")


def identity(settings: Config) -> dict[str, Any]:
    """The fields of ``result.json`` that say which run it is."""
    return {
        "config_hash": config_hash(settings),
        # A later task in the same folder leaves its own in .hydra, and that of an evaluation is not its run's.
        "config": plain(settings),
        # The job's own: of a sweep, sys.argv has the words of all jobs.
        "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "choices": {"encoder": settings.encoder.name, "decoder": settings.decoder.name, "data": settings.data.name},
        "seed": settings.seed,
        "versions": {name: version(name) for name in VERSIONS},
        "git_commit": _commit(),
    }


def run_name(settings: Config, run_dir: Path) -> str:
    """What W&B calls the run: its folder's name, or what a job of a sweep has chosen, as in ``bert-gpt2-seed1``.

    Encoder, decoder and seed stand in every job's name; in between, whatever else the jobs of its sweep differ in.
    """
    of_agent = "WANDB_SWEEP_ID" in os.environ
    if not HydraConfig.initialized() or not (HydraConfig.get().mode is RunMode.MULTIRUN or of_agent):
        return run_dir.name
    shared = _words_of_sweep(run_dir.parent)
    words = [word.lstrip("+") for word in HydraConfig.get().overrides.task if word not in shared]
    own = [(key, value) for key, _, value in (word.partition("=") for word in words) if _tells(key)]
    said = [f"{key}={_short(value)}" if "." in key else value for key, value in own]
    return "-".join([settings.encoder.name, settings.decoder.name, *said, f"seed{settings.seed}"])[:LONGEST_NAME]


def _words_of_sweep(folder: Path) -> list[str]:
    """The words of a sweep's command line, which its sweeper keeps; a job has those that do not vary as they stand."""
    try:
        hydra = read_yaml(SweepDir(folder).multirun)["hydra"]
        params = hydra["sweeper"].get("params") or {}
        return [*hydra["overrides"]["task"], *(f"{key}={value}" for key, value in params.items())]
    except (FileNotFoundError, DamagedFile, LookupError, TypeError, AttributeError):  # it decides a name only
        return []


def _tells(key: str) -> bool:
    """Whether a choice belongs in a name between encoder, decoder and seed."""
    others = ("experiment", "sweep", "debug", "evaluation.test")
    return key not in ("encoder", "decoder", "seed", *others, *CHANGES_NO_NUMBER) and not key.startswith("logger.")


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def config_hash(settings: Config) -> str:
    """The same for two runs exactly when everything that can change their numbers is the same."""
    config = plain(settings)
    for name in CHANGES_NO_NUMBER:
        *groups, key = name.split(".")
        within = config
        for group in groups:
            within = within[group]
        del within[key]
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def write_failure(settings: Config, run_dir: RunDir, error: BaseException, status: str = "failed") -> None:
    """Leave a ``result.json`` that says how the run ended instead; a full disk must not hide the error itself.

    Of several ranks the first to fail has said it: where a result lies already, it stands.
    """
    if run_dir.result.exists():
        return
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # Ours is written for a person to the last line; of another's the first one has to do.
    reason = " ".join(line.strip() for line in lines) if isinstance(error, UserError) else lines[0]
    failure = {"status": status, "error": f"{type(error).__name__}: {reason}"}
    try:
        run_dir.write_result(identity(settings) | failure)
    except OSError:
        return


def _commit() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it; None in an installed wheel."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():  # a wheel may lie inside somebody else's repository
        return None
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        found = subprocess.run(describe, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
