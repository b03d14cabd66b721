"""Where curves go: metrics.csv in the run directory always, Weights & Biases on request.

W&B never prompts: online where a key is configured, else offline with a line on how to sync. Its run id is kept in the
run directory, so a resumed run goes on in the same W&B run.
"""

import json
import logging
import netrc
import os
import uuid
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from warmstart.training.settings import LoggerSettings

_log = logging.getLogger(__name__)


def build_loggers(
    settings: LoggerSettings, run_dir: Path, *, run_name: str, config: dict[str, Any], tags: list[str]
) -> list[Logger]:
    """The loggers of a run; ``config`` is plain values."""
    loggers: list[Logger] = [CSVLogger(run_dir, name="", version="")]
    if settings.wandb:
        offline = not _key_is_configured() or os.environ.get("WANDB_MODE") == "offline"
        if offline:
            _log.warning(
                "W&B: no key is configured, logging offline. To upload: wandb sync %s/wandb/offline-run-*", run_dir
            )
        loggers.append(
            WandbLogger(
                name=run_name,
                save_dir=run_dir,
                id=_run_id(run_dir),
                project=settings.project,
                entity=settings.entity,
                group=settings.group,
                tags=[*tags, *settings.tags],
                config=json.loads(json.dumps(config, default=str)),
                mode="offline" if offline else "online",
                resume="allow",
            )
        )
    return loggers


def close_loggers(exit_code: int) -> None:
    """End the W&B run of this job, also after a failure: two jobs of one process must not share it."""
    import wandb

    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def _key_is_configured() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_id(run_dir: Path) -> str:
    path = run_dir / "wandb_id.txt"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text().strip()
