"""Choose the texts that ``task=evaluate`` scores: a split of the run, or every row of another file.

    settings, source, training = data_to_score(settings, saved, named)

A run on the user's own files splits one file into training and test rows. A path that differs from the run's is a file
to score, so all of its rows are the test split.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from warmstart.collectives import rank_and_world_size
from warmstart.config.data import DataKind, DataSettings
from warmstart.config.own_files import is_own_file
from warmstart.config.schema import Config
from warmstart.data.sources.base import SPLITS, Example, Source
from warmstart.data.sources.load import load_source
from warmstart.data.sources.own_paths import split_paths
from warmstart.errors import UserError
from warmstart.evaluation.baselines import OF_TRAINING
from warmstart.runs.saved_model import SavedModel

_SPLIT_PATHS = ("train_path", "validation_path", "test_path")
_COLUMNS = ("document_column", "summary_column", "id_column")
UNSCORED_FIT = "To train without scores, set evaluation.test=false trainer.validation_samples=0."
_log = logging.getLogger(__name__)


def data_to_score(
    settings: Config, saved: SavedModel, named: Collection[str], split: str = "test"
) -> tuple[Config, Source, Sequence[Example]]:
    """Load the texts of an evaluation.

    Args:
        settings: the config of the task.
        saved: the model to evaluate.
        named: the keys that the command line sets.
        split: the split to score. With ``validation``, the test split is not read.

    Returns:
        The settings, with the data that is read; a source with that split; the training examples that baselines
        use.

    Raises:
        UserError: the data cannot be read.
    """
    recorded: dict[str, Any] = saved.config.get("data", {})
    data, path = settings.data, settings.data.path
    if path is not None and _is_another_file(data, recorded, named):
        if split != "test":
            raise UserError(
                f"evaluation.test=false was set, but data.path={path} is not the data of the run and has no validation "
                "split. Leave evaluation.test= out to score all its rows."
            )
        return _every_row(settings, path, recorded, named)
    source = load_source(data, SPLITS if split == "test" else ("train", split))
    if data.kind is DataKind.files:
        _report_split(data, split, len(source.split(split)))
    return settings, source, source.split("train")


def check_scripts(source: Source, splits: Sequence[str], remedy: str, language: str = "en") -> None:
    """Check that the metrics can read the references of some splits.

    Args:
        source: the data.
        splits: names of the splits.
        remedy: the end of the error message: what else to do.
        language: ISO code of the references' language (``data.language``).

    Raises:
        UserError: the metrics would ignore many letters of a split's references.
    """
    from warmstart.evaluation.languages import check_references

    for split in splits:
        check_references([example.summary for example in source.split(split)], split, remedy, language)


def _is_another_file(data: DataSettings, recorded: dict[str, Any], named: Collection[str]) -> bool:
    """Return whether ``data.path`` is a file of the user, other than the run's, without splits of its own."""
    path, own = Path(str(data.path)).expanduser(), recorded.get("path")
    if any(f"data.{name}" in named for name in _SPLIT_PATHS):
        return False
    if own is not None and Path(own).expanduser().resolve() == path.resolve():
        return False
    if data.kind is not DataKind.files:
        # The file of a package, such as a copy of it elsewhere, has the suffix of the run's.
        same_kind = own is not None and Path(own).suffix.lower() == path.suffix.lower()
        return "data" not in named and is_own_file(str(path)) and not same_kind
    return not (path.is_dir() and split_paths(path))


def _every_row(
    settings: Config, path: str, recorded: dict[str, Any], named: Collection[str]
) -> tuple[Config, Source, Sequence[Example]]:
    data = replace(settings.data, train_path=None, validation_path=None, test_path=None)
    if data.kind is not DataKind.files:  # these columns are those of the run's data set
        plain = DataSettings(name="files")
        columns = {name: getattr(plain, name) for name in _COLUMNS if f"data.{name}" not in named}
        raw: dict[str, Any] = {"raw_targets": plain.raw_targets, "raw_splits": plain.raw_splits}
        data = replace(data, kind=DataKind.files, name="files", attribution=None, **raw, **columns)
    if "data.limit_test" not in named:
        data = replace(data, limit_test=None)
    source = load_source(data, ["test"], unsplit=True)
    training: Sequence[Example] = ()
    if needing := [name for name in data.baselines if name in OF_TRAINING]:
        training = _training_examples(recorded, data, needing)
    _report(
        "data.path=%s is not the data of the run (%s): all %d rows are scored.",
        *(path, recorded.get("path") or "not recorded", len(source.split("test"))),
    )
    return replace(settings, data=data), source, training


def _training_examples(recorded: dict[str, Any], data: DataSettings, needing: Sequence[str]) -> Sequence[Example]:
    """Return the run's training examples, for the baselines in ``needing``."""
    try:
        if "kind" not in recorded:  # an export
            raise UserError("The model does not record its training data.")
        of_run: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataSettings), recorded))
        of_run = replace(of_run, cache_dir=data.cache_dir, processes=data.processes)
        return load_source(of_run, ["train"]).split("train")
    except UserError as error:
        others = ",".join(name for name in data.baselines if name not in OF_TRAINING)
        raise UserError(
            f"The baselines {', '.join(needing)} need the run's training texts. {error} To score without them, set "
            f"data.baselines=[{others}]."
        ) from error


def _report_split(data: DataSettings, split: str, rows: int) -> None:
    from warmstart.data.sources.files import paths_of_splits

    paths = paths_of_splits(data)
    if split in paths:
        _report("%s=%s is scored as the %s split, %d rows.", *paths[split], split, rows)
    else:
        _report("%s=%s: its %s split is scored, %d rows.", *paths["train"], split, rows)


def _report(message: str, *values: object) -> None:
    if rank_and_world_size()[0] == 0:
        _log.info(message, *values)
