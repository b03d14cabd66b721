"""Recognize a user's own files in ``data.path``, which reads the hub unless ``data=files`` is set."""

from pathlib import Path

_SUFFIXES = tuple(
    suffix + packed for suffix in (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt") for packed in ("", ".gz")
)
# No reader reads these, and no data set of the hub has such a name: the error of data=files says what to do.
_UNREADABLE = (".xlsx", ".xls", ".ods", ".ndjson", ".docx", ".pdf", ".zip", ".arrow", ".feather")
_OF_THE_HUB = ("README.md", "dataset_dict.json", "dataset_info.json")  # data=cnn_dailymail reads or explains these
_CHOOSES_DATA = ("data", "experiment", "sweep", "data.kind", "data.subset", "data.revision")
_TASKS = ("fit", "check", "sbatch")


def is_own_file(path: str) -> bool:
    """Return whether ``path`` is an existing file, or has the suffix of a table, a text or a document."""
    return path.lower().endswith((*_SUFFIXES, *_UNREADABLE)) or Path(path).expanduser().is_file()


def with_own_files(words: list[str]) -> list[str]:
    """Add ``data=files`` to a command line that sets ``data.path`` to a file or folder and chooses no data set.

    Args:
        words: The words of the command line. With ``-m``, commas separate the values of ``data.path``.

    Returns:
        ``words``, with ``data=files`` in front of ``data.path`` if it was added.
    """
    given = dict(word.lstrip("+").partition("=")[::2] for word in words)
    path = given.get("data.path", "")
    if not path or any(key in given for key in _CHOOSES_DATA) or given.get("task", "fit") not in _TASKS:
        return words
    paths = path.split(",") if {"-m", "--multirun"} & set(words) else [path]
    paths = [one.strip("'\"") for one in paths]
    if not all(is_own_file(one) or _is_own_folder(one) for one in paths):
        return words
    # Next to the other override: argparse takes no override after an option such as --cfg.
    place = next(i for i, word in enumerate(words) if word.lstrip("+").startswith("data.path="))
    return [*words[:place], "data=files", *words[place:]]


def _is_own_folder(path: str) -> bool:
    folder = Path(path).expanduser()
    return bool(path) and folder.is_dir() and not any((folder / name).exists() for name in _OF_THE_HUB)
