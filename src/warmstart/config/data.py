"""What a researcher chooses about the data (conf/data): which texts, which columns, lengths, cleaning, batching."""

from dataclasses import dataclass, field
from enum import StrEnum


class DataKind(StrEnum):
    cnn_dailymail = "cnn_dailymail"
    files = "files"
    news = "news"
    written = "written"


class OnBadRow(StrEnum):
    fail = "fail"
    skip = "skip"


@dataclass
class BatchSettings:
    """How examples form batches."""

    max_tokens: int | None = 16384
    """Token budget of a batch, padding included: rows x (longest source + longest target). null uses ``size``."""
    size: int | None = None
    """Examples in a batch; with ``max_tokens`` set, the upper bound of it."""
    bucket: int = 100
    """Batches sorted by length together: larger pads less, smaller shuffles better."""
    workers: int = 0
    """Worker processes of each loader."""


@dataclass
class DataSettings:
    """Texts and how they become batches."""

    name: str = "???"
    """Short name of the choice."""
    kind: DataKind = DataKind.cnn_dailymail
    """Which reader: the hub data set, your own files, the installed real news, or the texts written for tests."""
    path: str | None = None
    """Hub id (cnn_dailymail), file or folder with all splits (files), or package file (news)."""
    revision: str = "main"
    """Branch, tag or commit of the hub data set."""
    subset: str | None = None
    """Configuration name of the hub data set, such as 3.0.0."""
    train_path: str | None = None
    """files: file or folder of the training split; overrides ``path``."""
    validation_path: str | None = None
    """files: file or folder of the validation split; without one a part of training is split off by hash."""
    test_path: str | None = None
    """files: file or folder of the test split; without one a part of training is split off by hash."""
    document_column: str = "document"
    """Column that holds the source text."""
    summary_column: str = "summary"
    """Column that holds the target text; news: ``subtitle`` (standfirst) or ``title`` (headline)."""
    id_column: str | None = None
    """Column with a unique id; null numbers the rows."""
    on_bad_row: OnBadRow = OnBadRow.fail
    """A row that cannot be used (no json, no text, an empty summary, an id that stands twice, bytes that are no UTF-8):
    ``fail`` ends the run with its file and row; ``skip`` leaves it out, says so, and counts it in ``result.json``."""
    clean: list[str] = field(default_factory=list)
    """Names of cleaning steps applied to documents and to training targets; test references are never altered."""
    max_source_length: int = 512
    """Source tokens kept, special tokens included."""
    max_target_length: int = 128
    """Label tokens kept, the end token included."""
    limit_train: int | None = None
    """Use only this many training examples: a random sample, the same in every run whatever its seed."""
    limit_validation: int | None = None
    """Use only this many validation examples, sampled as ``limit_train`` samples."""
    limit_test: int | None = None
    """Use only this many test examples, sampled as ``limit_train`` samples."""
    batch: BatchSettings = field(default_factory=BatchSettings)
    evaluation_max_tokens: int = 16384
    """Token budget of a validation or test batch."""
    cache_dir: str | None = None
    """Folder of the token cache; null is ~/.cache/warmstart (or $WARMSTART_CACHE)."""
    processes: int | None = None
    """Processes that tokenize; null uses every core."""
