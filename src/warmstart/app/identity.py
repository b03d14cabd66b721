"""What a result is a result of: its config's hash, the command, the seed, the versions and the commit."""

import hashlib
import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from warmstart.app.schema import Config, plain
from warmstart.errors import UserError
from warmstart.evaluation.result import CHANGES_NO_NUMBER, write_result

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


def write_failure(settings: Config, run_dir: Path, error: BaseException, status: str = "failed") -> None:
    """Leave a ``result.json`` that says how the run ended instead; a full disk must not hide the error itself.

    Of several ranks the first to fail has said it: where a result lies already, it stands.
    """
    if (run_dir / "result.json").exists():
        return
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # Ours is written for a person to the last line; of another's the first one has to do.
    reason = " ".join(line.strip() for line in lines) if isinstance(error, UserError) else lines[0]
    failure = {"status": status, "error": f"{type(error).__name__}: {reason}"}
    try:
        write_result(run_dir, identity(settings) | failure)
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
