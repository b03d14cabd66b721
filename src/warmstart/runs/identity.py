"""Identify a run: config hash, command, seed, package versions and git commit."""

import hashlib
import json
import os
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from warmstart.config.option import options
from warmstart.config.schema import CHANGES_NO_NUMBER, Config, plain
from warmstart.damaged_files import DamagedFile, read_yaml
from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir, SweepDir

LONGEST_NAME = 128  # characters; the limit of W&B
# The options that version 1 of the config hash covers, by group. A later option is never added here.
_OF_VERSION_1 = {
    "": "seed ckpt_weights",
    **dict.fromkeys(("encoder", "decoder"), "path model_type revision weights scale attention tokenizer architecture"),
    "bridge": "share freeze lora lora_rank lora_alpha warmup_steps init every_n_layers gate bias dropout",
    "data": "kind path revision subset train_path validation_path test_path document_column summary_column id_column "
    "on_bad_row clean max_source_length max_target_length limit_train limit_validation limit_test "
    "evaluation_max_tokens",
    "data.batch": "max_tokens size bucket",
    "optim": "encoder_rate decoder_rate new_rate gate_rate weight_decay betas warmup_steps warmup_fraction decay "
    "label_smoothing",
    "trainer": "max_epochs max_steps max_minutes accumulate clip_norm precision accelerator devices nodes strategy "
    "validations_per_epoch validation_samples monitor monitor_mode patience compile checkpoint_activations "
    "keep_freed_memory extra",
    "generation": "num_beams max_new_tokens min_new_tokens length_penalty no_repeat_ngram_size early_stopping "
    "do_sample temperature top_p dtype",
    "evaluation": "test lead_sentences bootstrap_samples control_samples control_shuffles",
}
VERSIONS = ("torch", "lightning", "transformers", "hydra-core", "warmstart")


def identity(settings: Config, run_dir: RunDir) -> dict[str, Any]:
    """Return the fields of ``result.json`` that identify the run."""
    return {
        "config_hash": config_hash_in(run_dir, settings),
        # Not from .hydra, where a later task in the same folder writes its own config.
        "config": plain(settings),
        # Not from sys.argv, which has the overrides of the whole sweep instead of those of this job.
        "overrides": list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "choices": {"encoder": settings.encoder.name, "decoder": settings.decoder.name, "data": settings.data.name},
        "seed": settings.seed,
        "versions": {name: version(name) for name in VERSIONS},
        "git_commit": _commit(),
    }


def run_name(settings: Config, run_dir: Path) -> str:
    """Return the display name of a run in W&B.

    Outside of sweeps it is the name of the run's folder. A job of a sweep gets a name such as ``bert-gpt2-seed1``:
    encoder, decoder, further options in which the jobs differ, and seed.
    """
    of_agent = "WANDB_SWEEP_ID" in os.environ
    if not HydraConfig.initialized() or not (HydraConfig.get().mode is RunMode.MULTIRUN or of_agent):
        return run_dir.name
    shared = _overrides_of_sweep(run_dir.parent)
    overrides = [word.lstrip("+") for word in HydraConfig.get().overrides.task if word not in shared]
    own = [(key, value) for key, _, value in (word.partition("=") for word in overrides) if _belongs_in_name(key)]
    options = [f"{key}={_short(value)}" if "." in key else value for key, value in own]
    return "-".join([settings.encoder.name, settings.decoder.name, *options, f"seed{settings.seed}"])[:LONGEST_NAME]


def _overrides_of_sweep(folder: Path) -> list[str]:
    """Return the overrides of a sweep's command. Those that do not vary are unchanged in its jobs."""
    try:
        hydra = read_yaml(SweepDir(folder).multirun)["hydra"]
        params = hydra["sweeper"].get("params") or {}
        return [*hydra["overrides"]["task"], *(f"{key}={value}" for key, value in params.items())]
    except (FileNotFoundError, DamagedFile, LookupError, TypeError, AttributeError):  # only the name depends on it
        return []


def _belongs_in_name(key: str) -> bool:
    """Return whether an option belongs in the name of a job, in addition to encoder, decoder and seed."""
    others = ("experiment", "sweep", "debug", "evaluation.test")
    return key not in ("encoder", "decoder", "seed", *others, *CHANGES_NO_NUMBER) and not key.startswith("logger.")


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def config_hash(settings: Config) -> str:
    """Return the hash of all options that can change a result, such as ``v2-0123456789abc``.

    An option only counts if its value differs from its first default, the default of the release that introduced it.
    So new options in later releases do not change the hashes of earlier runs. This is version 2 of the hash.
    """
    return f"v2-{_digest(_away_from_first_defaults(settings))[:13]}"


def config_hash_1(settings: Config) -> str | None:
    """Return version 1 of the hash, which earlier releases wrote; None if a newer option is set.

    It covers the values of all options that could change a result in those releases.
    """
    known = {f"{group}.{name}" if group else name for group, names in _OF_VERSION_1.items() for name in names.split()}
    if not _away_from_first_defaults(settings).keys() <= known:
        return None
    values, config = plain(settings), dict[str, Any]()
    for key in known:
        *groups, name = key.split(".")
        within = config
        for group in groups:
            within = within.setdefault(group, {})
        within[name] = _value(values, key)
    return _digest(config)[:16]


def config_hash_in(run_dir: RunDir, settings: Config) -> str:
    """Return the config hash in the version that a run's folder uses: 1 if a release with version 1 created it.

    A folder keeps its version, because its name, ``unfinished``, checkpoints and result are compared with each other.
    """
    earlier = config_hash_1(settings)
    if earlier is None:
        return config_hash(settings)
    held = [run_dir.path.name]
    for mark in (run_dir.checkpoints.unfinished, run_dir.checkpoints.finished):
        if mark.exists():
            held += mark.read_text().split()[:1]
    with suppress(UserError):  # no result, or a damaged one
        held.append(str(run_dir.read_result().get("config_hash")))
    return earlier if earlier in held else config_hash(settings)


def _away_from_first_defaults(settings: Config) -> dict[str, Any]:
    values = plain(settings)
    of_result = {key: one for key, one in options(type(settings)).items() if one.changes_result}
    return {key: value for key, one in of_result.items() if (value := _value(values, key)) != one.first_default}


def _value(values: dict[str, Any], key: str) -> Any:
    value: Any = values
    for name in key.split("."):
        value = value[name]
    return value


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_failure(settings: Config, run_dir: RunDir, error: BaseException, status: str = "failed") -> None:
    """Write a ``result.json`` with the error that ended the run.

    An existing result is kept, which is that of the rank that failed first. If the file cannot be written, for example
    because the disk is full, nothing is raised, so that the error itself is shown.

    Args:
        settings: the config.
        run_dir: the run directory.
        error: the error.
        status: ``failed`` or ``interrupted``.
    """
    if run_dir.result.exists():
        return
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # Our own messages may need all their lines. Those of other libraries can be long, so only the first line is kept.
    reason = " ".join(line.strip() for line in lines) if isinstance(error, UserError) else lines[0]
    failure = {"status": status, "error": f"{type(error).__name__}: {reason}"}
    try:
        run_dir.write_result(identity(settings, run_dir) | failure)
    except OSError:
        return


def _commit() -> str | None:
    """Return the git commit of the checkout, with "+changes" if files were changed; None if not in a checkout."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():  # an installed package may lie in another project's repository
        return None
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        found = subprocess.run(describe, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
