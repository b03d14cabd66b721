"""Load the configured data set: one reader per ``data.kind``, then the same cleaning, limits and objective for all.

    source = load_source(settings)
    source.split("train")[0].document

Splits of the hub data set and of the user's files stay on disk and are read and cleaned row by row. All other splits
are lists. With an objective (``data.objective``) every split is read row by row.
"""

import logging
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np

from warmstart.config.data import DataKind, DataSettings, Objective
from warmstart.data.cleaning import CLEANING_VERSION, Step, kept_in_training, steps_named
from warmstart.data.objectives import OBJECTIVES_VERSION
from warmstart.data.sources.base import SPLITS, CleanedSplit, Example, ObjectiveSplit, Source
from warmstart.data.sources.unique_ids import with_unique_ids
from warmstart.errors import UserError

_log = logging.getLogger(__name__)


def load_source(
    settings: DataSettings, splits: Sequence[str] = SPLITS, *, unsplit: bool = False, overlaps: bool = True
) -> Source:
    """Read, clean and limit a data set.

    Args:
        settings: The data set, its cleaning steps and its limits (the ``data`` group of the config).
        splits: The splits to return. Files of other splits are not opened. If splits are made from one file, its
            rows are divided the same way whichever splits are requested.
        unsplit: Whether all rows of ``data.path``, a file of the user, are the test split, which is then the only one.
        overlaps: Whether to count and log the validation and test documents that are also training documents.

    Returns:
        The requested splits.

    Raises:
        UserError: The data set cannot be read; the message names the option to change.
    """
    steps = steps_named(settings.clean)
    read, report = _read(settings, splits, unsplit)
    raw = {name: with_unique_ids(rows) if isinstance(rows, list) else rows for name, rows in read.items()}
    report = dict(report) | (_overlaps(raw, splits, settings.name) if overlaps else {})
    found: dict[str, Sequence[Example]] = {}
    for name in splits:
        limit = getattr(settings, f"limit_{name}")
        if limit is not None and limit < 1:
            raise UserError(f"data.limit_{name}={limit} leaves no example. Set 1 or more, or null for all.")
        found[name] = _prepared(raw[name], steps, limit, name, settings)
        report[f"{name}_read"], report[f"{name}_examples"] = len(raw[name]), len(found[name])
        report[f"{name}_sampled"] = int(len(found[name]) == limit and limit < len(raw[name]))
        if not found[name]:
            raise UserError(
                f"data={settings.name}: none of the {len(raw[name])} {name} examples is left after data.clean="
                f"{settings.clean}. Remove steps from data.clean, or provide more data."
            )
    made_by = f"{CLEANING_VERSION} {settings.clean}"
    if settings.objective is not Objective.summary:
        made_by += f" {OBJECTIVES_VERSION} {settings.objective.value}"
    return Source(found, name=settings.name, report=report, steps=made_by)


def _read(
    settings: DataSettings, splits: Sequence[str], unsplit: bool
) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    # Imported here because a reader's libraries take seconds to import, and only one reader is used.
    match settings.kind:
        case DataKind.cnn_dailymail | DataKind.hub:
            from warmstart.data.sources.hub import read_hub as read
        case DataKind.debian:
            from warmstart.data.sources.debian import read_debian as read
        case DataKind.files:
            from warmstart.data.sources.files import read_every_row, read_files

            return read_every_row(settings) if unsplit else read_files(settings, splits)
        case DataKind.news:
            from warmstart.data.sources.news import read_news as read
        case DataKind.short_descriptions:
            from warmstart.data.sources.short_descriptions import read_short_descriptions as read
        case DataKind.written:
            from warmstart.data.sources.synthetic import read_synthetic as read
    return read(settings)


def _overlaps(raw: Mapping[str, Sequence[Example]], splits: Sequence[str], name: str) -> dict[str, int]:
    """Count and log the validation and test documents that are also training documents."""
    from warmstart.data.sources.overlap import shared_documents

    found = {}
    for split in ("validation", "test"):
        if "train" in splits and split in splits and (shared := shared_documents(raw[split], raw["train"])):
            _log.warning(
                "data=%s: %d of %d %s documents are also training documents, so %s scores are too high. Remove them "
                "from one of the two splits.",
                *(name, shared, len(raw[split]), split, split),
            )
            found[f"{split}_documents_in_train"] = shared
    return found


def _prepared(
    raw: Sequence[Example], steps: list[Step], limit: int | None, name: str, settings: DataSettings
) -> Sequence[Example]:
    objective = settings.objective
    labelled = objective is Objective.summary
    training = name == "train" and labelled
    every = CleanedSplit(raw, range(len(raw)), steps, training=training)
    rows: Iterable[int] = range(len(raw)) if limit is None or limit >= len(raw) else _random_order(len(raw), name)
    # An objective makes its own targets, so no example is dropped because of its label.
    if training and any(step.keep for step in steps):

        def usable(i: int) -> bool:
            example = every[i]
            return kept_in_training(example.document, example.summary, steps, settings.language)

        rows = filter(usable, rows)
    chosen: Sequence[int] = rows if isinstance(rows, range) else array("q", sorted(islice(rows, limit)))
    if not labelled:
        return ObjectiveSplit(CleanedSplit(raw, chosen, steps, training=False), objective)
    if isinstance(raw, list):
        return [every[i] for i in chosen]
    return CleanedSplit(raw, chosen, steps, training=training)


def _random_order(rows: int, split: str) -> list[int]:
    """Return the order in which a limit takes rows.

    The order is random because a file may be sorted, by date or by publisher. It depends only on the split's name and
    its number of rows, never on the run's seed. So all runs are evaluated on the same examples, and a smaller limit
    takes a subset of what a larger one takes.
    """
    seed = zlib.crc32(f"{split} {rows}".encode())
    # Not default_rng: only the legacy generator returns the same numbers in every release of NumPy (NEP 19).
    order: list[int] = np.random.RandomState(seed).permutation(rows).tolist()
    return order
