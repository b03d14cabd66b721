"""What a result is a result of: its config's hash, the command, the seed, the versions and the commit."""

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from warmstart.app.schema import Config, plain
from warmstart.evaluation.result import write_result

VERSIONS = ("torch", "lightning", "transformers", "hydra-core", "warmstart")
# Keys that name a run or say where it lies, logs or shows itself, and change no number.
_NAMES = ("task", "name", "output_root", "ckpt", "input", "output", "logger")
_SHOWN = {"trainer": ("progress_bar", "log_every"), "data": ("cache_dir",), "batch": ("workers",)}


def identity(settings: Config) -> dict[str, Any]:
    """The fields of ``result.json`` that say which run it is."""
    return {
        "config_hash": config_hash(settings),
        "overrides": [word for word in sys.argv[1:] if not word.startswith("-")],
        "choices": {"encoder": settings.encoder.name, "decoder": settings.decoder.name, "data": settings.data.name},
        "seed": settings.seed,
        "versions": {name: version(name) for name in VERSIONS},
        "git_commit": _commit(),
    }


def config_hash(settings: Config) -> str:
    """The same for two runs exactly when everything that can change their numbers is the same."""
    config = {key: value for key, value in plain(settings).items() if key not in _NAMES}
    groups = {"trainer": config["trainer"], "data": config["data"], "batch": config["data"]["batch"]}
    for group, keys in _SHOWN.items():
        for key in keys:
            del groups[group][key]
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def write_failure(settings: Config, run_dir: Path, error: BaseException) -> None:
    """Leave a ``result.json`` that says the run failed, and of what; a full disk must not hide the error itself."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    failure = {"status": "failed", "error": f"{type(error).__name__}: {reason}"}
    try:
        write_result(run_dir, identity(settings) | failure)
    except OSError:
        return


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
