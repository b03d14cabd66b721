"""The loggers of a run: always metrics.csv, and Weights & Biases if configured.

W&B never prompts. It logs online if a key is configured and the server answers, else offline, with a log line that says
how to sync. The run directory holds the W&B run id, so a resumed run continues the same W&B run.
"""

import json
import logging
import math
import netrc
import os
import re
import socket
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from warmstart.atomic import write_text
from warmstart.config.training import LoggerSettings
from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir
from warmstart.training.loggers.csv import MetricsCsv
from warmstart.training.loggers.wandb_guard import guard_wandb_logger, log_wandb_errors

_log = logging.getLogger(__name__)

A_RUN_ID = re.compile(r"[^\s/\\#?%:;,'\"\x00-\x1f]{1,64}")  # ids that W&B accepts
LONGEST_TAG = 64  # characters
SECONDS = 3.0  # for W&B's server to answer; wandb.init would wait 90 and then fail


def build_loggers(
    settings: LoggerSettings, run_dir: Path, *, run_name: str, config: dict[str, Any], tags: list[str]
) -> list[Logger]:
    """Build the loggers of a run; W&B is missing if it rejects its settings.

    Args:
        settings: the ``logger`` config.
        run_dir: folder of the run.
        run_name: display name in W&B.
        config: plain values that W&B stores as the run's config.
        tags: W&B tags in addition to those of ``settings``.
    """
    loggers: list[Logger] = [MetricsCsv(run_dir)]
    if settings.wandb:
        with log_wandb_errors():
            options: dict[str, Any] = {
                "name": run_name,
                "save_dir": run_dir,
                "id": _run_id(run_dir),
                "project": settings.project,
                "entity": settings.entity,
                "group": settings.group,
                "job_type": "fit",
                "tags": _tags([*tags, *settings.tags]),
                "config": json.loads(json.dumps(config, default=str)),
            }
            loggers.append(guard_wandb_logger(_started(options, run_dir)))
    return loggers


@rank_zero_only
def log_parameters(loggers: list[Logger], counts: dict[str, int]) -> None:
    """Add the parameter counts to W&B's config, so that its tables can group and filter by them."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            with log_wandb_errors():  # allow_val_change: a resumed run has them already
                logger.experiment.config.update({"parameters": counts}, allow_val_change=True)


def log_result(loggers: list[Logger], result: Mapping[str, Any]) -> None:
    """Log the test scores; W&B's summary also gets the other numbers of ``result.json``.

    An interval becomes two numbers, as in ``test/rouge1_low`` and ``baselines/lead1/rouge1_difference_high``. Values
    that are not numbers, such as the missing interval of a single example, are left out.

    Args:
        loggers: the loggers of the run.
        result: the contents of ``result.json``.
    """
    # Scores of the whole validation split would be one more point of the curves of the validation samples.
    tested = {name: value for name, value in result["metrics"].items() if name.startswith("test/")}
    metrics = {name: value for name, value in tested.items() if isinstance(value, int | float)}
    wanted = (
        "baselines",
        "controls",
        "parameters",
        "throughput",
        "seconds",
        "peak_memory_bytes",
        "steps",
        "validation",
    )
    summary = dict(_numbers(result["metrics"])) | dict(_numbers({k: result[k] for k in wanted if k in result}))
    for logger in loggers:
        if metrics:
            logger.log_metrics(metrics)
        if isinstance(logger, WandbLogger):
            with log_wandb_errors():
                logger.experiment.summary.update(summary)
        logger.save()


def log_evaluation(settings: LoggerSettings, run_dir: Path, fit: Path | None, result: Mapping[str, Any]) -> None:
    """Log a finished evaluation to W&B: to the run of a fit, or to a run of its own.

    Args:
        settings: Project, entity, group and tags.
        run_dir: The evaluation's folder, where W&B writes.
        fit: The folder of the fit whose W&B run gets the scores; None, or a fit without a W&B run, makes a new run.
        result: The contents of ``result.json``.
    """
    options: dict[str, Any] = {"save_dir": run_dir, "project": settings.project, "entity": settings.entity}
    with log_wandb_errors():
        if fit is not None and RunDir(fit).wandb_id.exists():
            options["id"] = _kept_id(RunDir(fit).wandb_id)
        else:
            config = json.loads(json.dumps(result["config"], default=str))
            options |= {"id": _run_id(run_dir), "name": run_dir.name, "config": config, "job_type": "evaluate"}
            options |= {"group": settings.group, "tags": _tags(settings.tags)}
        log_result([guard_wandb_logger(_started(options, run_dir))], result)
    close_loggers(0)


def _tags(tags: list[str]) -> list[str]:
    """Drop empty tags and cut long ones, such as an encoder's name: one bad tag makes W&B reject the run."""
    return [tag[:LONGEST_TAG] for tag in tags if tag]


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif name.endswith("_ci"):
            yield from _numbers(
                {f"{name[:-2]}{end}": at for end, at in zip(("low", "high"), value, strict=True)}, prefix
            )
        elif isinstance(value, int | float) and math.isfinite(value):
            yield f"{prefix}{name}", value


def close_loggers(exit_code: int) -> None:
    """End the W&B run of this job, so that the next job of the process does not share it.

    Args:
        exit_code: 0 after success; W&B marks the run as failed otherwise.
    """
    wandb = sys.modules.get("wandb")  # not imported if W&B is off
    if wandb is not None and wandb.run is not None:
        with log_wandb_errors():
            wandb.finish(exit_code=exit_code)


def wandb_mode() -> tuple[str, str]:
    """Return ``online``, ``offline`` or ``disabled``, and the reason.

    ``WANDB_MODE`` can set offline or disabled; it cannot force online.
    """
    requested = os.environ.get("WANDB_MODE", "").lower()
    if requested in ("offline", "dryrun"):
        return "offline", f"WANDB_MODE={requested}"
    if requested == "disabled":
        return "disabled", "WANDB_MODE=disabled"
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if not _key_is_configured(server):
        return "offline", "no key is configured (wandb login, or WANDB_API_KEY)"
    if not _answers(server):
        return "offline", f"{server} does not answer"
    return "online", "a key is configured"


@rank_zero_only
def _warn_offline(run_dir: Path, reason: str) -> None:
    _log.warning("W&B: %s, so logging offline. To upload: wandb sync %s/wandb/offline-run-*", reason, run_dir)


def _started(options: dict[str, Any], run_dir: Path) -> WandbLogger:
    mode, reason = wandb_mode()
    if mode == "online":
        import wandb

        try:
            # Pass ``mode``: WandbLogger(offline=True) would set WANDB_MODE for every later job of the process.
            logger = WandbLogger(**options, mode=mode, resume="allow")
            _ = logger.experiment  # start the run now, while falling back to offline is possible
        except wandb.Error as error:
            mode, reason = "offline", str(error).splitlines()[0] if str(error) else type(error).__name__
            close_loggers(1)
        else:
            return logger
    if mode == "offline":
        _warn_offline(run_dir, reason)
    # ``resume`` does not work offline; syncing merges runs with the same id.
    logger = WandbLogger(**options, mode=mode, resume=None)
    _ = logger.experiment
    return logger


def _key_is_configured(server: str) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(server).netloc
    # wandb reads $NETRC, else ~/.netrc, else ~/_netrc.
    named = os.environ.get("NETRC")
    paths = [named] if named else [os.path.expanduser(f"~/{name}") for name in (".netrc", "_netrc")]
    for path in paths:
        try:
            if netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _answers(server: str) -> bool:
    url = urlsplit(server)
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and url.hostname and not urllib.request.proxy_bypass(url.hostname):
        url = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), timeout=SECONDS).close()
    except OSError:
        return False
    return True


@rank_zero_only
def _run_id(run_dir: Path) -> str:
    """Return the W&B run id of the run directory; make one if it is missing.

    An agent of W&B Sweeps sets the id, and wandb uses that one in any case. Only rank 0 writes the id: ranks that start
    together would each write a different one.
    """
    path = RunDir(run_dir).wandb_id
    if (given := os.environ.get("WANDB_RUN_ID")) and os.environ.get("WANDB_SWEEP_ID"):
        write_text(path, given)
    elif not path.exists():
        write_text(path, uuid.uuid4().hex[:12])
    return _kept_id(path)


def _kept_id(path: Path) -> str:
    """Return the run id in a file.

    Raises:
        UserError: the file does not hold an id that W&B accepts.
    """
    found = path.read_bytes()[:1000].decode("utf-8", "backslashreplace").strip()
    if not A_RUN_ID.fullmatch(found):
        raise UserError(f"{path} holds {found[:80]!r}, which is not a W&B run id. Remove the file to start a new run.")
    return found
