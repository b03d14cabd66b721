"""Fit a pair from Python: compose the config of a recipe, and run ``task=fit`` in this process."""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from warmstart.api.composing import Overrides, composed, words_of
from warmstart.api.in_memory import COLUMNS, is_path, path_of
from warmstart.api.process_state import library_settings_restored
from warmstart.api.trained_run import TrainedRun
from warmstart.atomic import write_text
from warmstart.collectives import of_all_ranks
from warmstart.config.schema import Config, to_settings
from warmstart.errors import Interrupted, UserError
from warmstart.runs.lock import held
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit as fit_task
from warmstart.tasks.check import validate
from warmstart.training.recipe import with_recipe

if TYPE_CHECKING:
    from warmstart.api.in_memory import Texts

_SPLITS = ("train", "validation", "test")
_SET_BY_LAUNCHERS = ("LOCAL_RANK", "SLURM_PROCID")  # by torchrun and srun


def fit(
    train: "Texts | Mapping[str, Texts] | None" = None,
    *,
    validation: "Texts | None" = None,
    test: "Texts | None" = None,
    encoder: str | None = None,
    decoder: str | None = None,
    recipe: str | None = None,
    overrides: Overrides | None = None,
    name: str | None = None,
    output_root: str | Path = "runs",
    document_column: str | None = None,
    summary_column: str | None = None,
) -> TrainedRun:
    """Fine-tune an encoder and a decoder on texts, test the best checkpoint, and write the run's folder.

    The folder is the same as that of ``python run.py``, and every task reads it. The same call with the same ``name``
    resumes an interrupted run, and returns a finished one without repeating it.

    Args:
        train: The texts: (document, summary) pairs, a pandas DataFrame, a ``datasets.Dataset``, or the path of a file
            or folder; or a mapping with ``train``, ``validation`` and ``test``, such as a ``DatasetDict``. None takes
            the data set of the recipe or of ``overrides``, else CNN/DailyMail. Texts in memory are written into the
            cache, where later evaluations read them.
        validation: Texts of the validation split; by default 5 % of ``train``.
        test: Texts of the test split; by default 5 % of ``train``.
        encoder: A choice of ``conf/encoder`` such as ``"bert"``, or a hub id with a slash, or a folder.
        decoder: The same for the decoder.
        recipe: A choice of ``conf/experiment`` such as ``"demo"``: all settings of a run.
        overrides: Further options: ``{"trainer.max_epochs": 3}``, or words as on the command line. They take
            precedence over the recipe.
        name: Name of the run's folder; by default made from the choices and the time.
        output_root: Folder that holds all runs.
        document_column: Column of the source texts. By default ``document``, or for files the column that the recipe
            names.
        summary_column: Column of the target texts; likewise ``summary``.

    Returns:
        The finished run.

    Raises:
        UserError: An option, a text or a checkpoint cannot be used; the message says what to do.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGUSR1; the last checkpoint is kept, and the same call with ``name``
            resumes.
    """
    texts = dict(train) if isinstance(train, Mapping) else {"train": train}
    given = {"validation": validation, "test": test}
    texts |= {split: value for split, value in given.items() if value is not None}
    if unknown := sorted(map(str, texts.keys() - set(_SPLITS))):
        raise UserError(f"train has the splits {unknown}, which a fit does not read. Name them {', '.join(_SPLITS)}.")
    if texts.get("train") is None and (len(texts) > 1 or isinstance(train, Mapping)):
        raise UserError("There are no training texts. Pass train, or leave out all splits to use the recipe's data.")
    words = _submodel("encoder", encoder) + _submodel("decoder", decoder)
    words += [] if recipe is None else [f"experiment={recipe}"]
    more = words_of(overrides)
    options = _data_options(texts, (document_column, summary_column), more)
    words += words_of(options)
    if name is not None and not name.strip(" ./"):
        raise UserError(f"name={name!r} names no folder. Set a name, or leave it out.")
    words += words_of({"output_root": output_root} | ({} if name is None else {"name": name}))
    with library_settings_restored(), _naming_the_texts(texts, options), composed([*words, *more]) as cfg:
        settings = to_settings(cfg)
        _refuse_other_tasks(settings)
        _refuse_missing_ranks(settings)
        validate(with_recipe(settings).settings)  # before the run's folder is made
        folder = _folder(settings)
        try:
            with held(folder):
                write_text(RunDir(folder).hydra_config, OmegaConf.to_yaml(cfg))
                write_text(RunDir(folder).hydra_overrides, OmegaConf.to_yaml([*words, *more]))
                fit_task.run(settings, folder)
                if _ranks(settings) > 1:
                    of_all_ranks(None)  # rank 0 writes the result last
        except Interrupted as interruption:
            raise KeyboardInterrupt(str(interruption)) from interruption
        except UserError:
            if settings.name is None:
                with suppress(OSError):  # the error that is reported matters more
                    RunDir(folder).remove_unused()
            raise
    return TrainedRun(folder)


@contextmanager
def _naming_the_texts(texts: dict[str, Any], options: dict[str, Any]) -> Iterator[None]:
    """Let errors name the argument whose texts are in memory, and not the file that they were written to."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for split, value in texts.items():
            option = "data.path" if "data.path" in options else f"data.{split}_path"
            if not (value is None or is_path(value)):
                file = f"{option}={options[option]}"
                message = message.replace(f"{file}: line ", f"{split}: row ").replace(file, split)
        if message == str(error):  # an error of a more specific class keeps it
            raise
        raise UserError(message) from error


def _refuse_other_tasks(settings: Config) -> None:
    if settings.task != "fit":
        raise UserError(f"task={settings.task} was requested, but warmstart.fit runs task=fit. Use the command line.")
    if sweep := HydraConfig.get().runtime.choices.get("sweep"):
        raise UserError(f"sweep={sweep} has several jobs. Call warmstart.fit for each, or use python run.py -m.")


def _ranks(settings: Config) -> int:
    return settings.trainer.devices * settings.trainer.nodes


def _refuse_missing_ranks(settings: Config) -> None:
    """Refuse several devices unless a launcher has started this script once for each.

    Lightning would start the others with the options of a Hydra application, which the caller's script does not have.
    """
    ranks = _ranks(settings)
    if ranks > 1 and not any(name in os.environ for name in _SET_BY_LAUNCHERS):
        raise UserError(
            f"{ranks} devices were requested, but this script was started once. Start it with `torchrun "
            f"--nproc-per-node {settings.trainer.devices} SCRIPT.py` (or srun), or use the command line, which starts "
            "the others itself."
        )


def _submodel(role: str, chosen: str | None) -> list[str]:
    if chosen is None:
        return []
    if "/" in chosen or Path(chosen).is_dir():
        return [f"{role}=hf", *words_of({f"{role}.path": chosen})]
    return [f"{role}={chosen}"]


def _data_options(texts: dict[str, Any], columns: tuple[str | None, str | None], more: list[str]) -> dict[str, Any]:
    """Return the options of the data; texts in memory are written to files first."""
    named = {f"data.{role}_column": name for role, name in zip(COLUMNS, columns, strict=True) if name is not None}
    if texts["train"] is None:
        return named
    given = dict(word.partition("=")[::2] for word in more)
    in_memory = not all(map(is_path, texts.values()))
    if in_memory:
        if any(map(is_path, texts.values())):
            raise UserError("Some of train, validation and test are paths, others are in memory. Pass all as one kind.")
        named = {f"data.{role}_column": role for role in COLUMNS}
    used = columns[0] or COLUMNS[0], columns[1] or COLUMNS[1]
    paths = {split: path_of(one, split, used, given.get("data.cache_dir")) for split, one in texts.items()}
    whole = paths if len(paths) > 1 else {}
    options = {f"data.{split}_path": path for split, path in whole.items()} or {"data.path": paths["train"]}
    return {"data": "files", **named, **options}


def _folder(settings: Config) -> Path:
    root = Path(settings.output_root)
    if settings.name is not None:
        return root / settings.name
    if (ranks := _ranks(settings)) > 1:
        raise UserError(f"{ranks} devices were requested, but each rank would make its own folder. Pass name.")
    choices = "-".join((settings.encoder.name, settings.decoder.name, settings.data.name))
    return root / choices / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
