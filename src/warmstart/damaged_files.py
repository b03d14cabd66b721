"""Read the files of a run, which a killed process, a full disk or an edit may have damaged.

Each reader accepts only a regular file of limited size and returns plain Python values. It raises ``DamagedFile`` for
anything else. Nothing is interpolated: a recorded ``${oc.env:HF_TOKEN}`` stays literal text.
"""

import csv
import json
import math
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from warmstart.errors import UserError

_LONGEST_YAML = 2**20  # bytes; a run's config has 6,000
_LONGEST = 2**30
_DEEPEST = 50


class DamagedFile(UserError):
    """A file of a run is damaged.

    Args:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged ({reason}).")


def read_text(path: Path, *, longest: int = _LONGEST, errors: str = "strict") -> str:
    """Read a text file.

    Args:
        path: The file.
        longest: Maximum size in bytes.
        errors: How to decode bytes that are not UTF-8, as in ``bytes.decode``.

    Raises:
        FileNotFoundError: The file does not exist.
        DamagedFile: The file is not a regular file, cannot be opened, is too long or is not UTF-8.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for a writer
            raise DamagedFile(path, "not a regular file")
        if status.st_size > longest:
            raise DamagedFile(path, f"{status.st_size:,} bytes; the limit is {longest:,}")
        return path.read_text(encoding="utf-8", errors=errors)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFile(path, error.strerror or type(error).__name__) from error
    except UnicodeDecodeError as error:
        raise DamagedFile(path, f"not UTF-8 at byte {error.start}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read the object of a JSON file; numbers that are not finite become None.

    Raises:
        FileNotFoundError: The file does not exist.
        DamagedFile: The file does not contain a JSON object.
    """
    return _object(path, read_text(path), "")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the objects of a file with one JSON object per line.

    Raises:
        FileNotFoundError: The file does not exist.
        DamagedFile: A line does not contain a JSON object.
    """
    lines = enumerate(read_text(path).split("\n"), 1)  # not splitlines, which also splits at other characters
    return [_object(path, line, f"line {number}: ") for number, line in lines if line.strip()]


def read_yaml(path: Path, kind: type[Any] = dict) -> Any:
    """Read a yaml file that Hydra or a run wrote.

    Args:
        path: The file.
        kind: The expected type, ``dict`` or ``list``.

    Raises:
        FileNotFoundError: The file does not exist.
        DamagedFile: The file is not valid yaml, has another type, or contains aliases, whose expansion is unbounded.
    """
    text = read_text(path, longest=_LONGEST_YAML)
    try:
        value = yaml.load(text, _Loader)
    except Exception as error:  # a damaged tag can raise any error
        raise DamagedFile(path, _reason(error)) from error
    if not isinstance(value, kind):
        raise DamagedFile(path, f"a {type(value).__name__}, not a {kind.__name__}")
    return value


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; cells that are missing, as after a killed process, become empty.

    Raises:
        FileNotFoundError: The file does not exist.
        DamagedFile: The file is not CSV.
    """
    rows = csv.DictReader(read_text(path, errors="replace").split("\n"))
    try:
        return [{name: row[name] or "" for name in rows.fieldnames or ()} for row in rows]
    except csv.Error as error:
        raise DamagedFile(path, str(error)) from error


def _object(path: Path, text: str, where: str) -> dict[str, Any]:
    try:
        value = _finite(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, f"{where}{_reason(error)}") from error
    if not isinstance(value, dict):
        raise DamagedFile(path, f"{where}a {type(value).__name__}, not an object")
    return value


def _finite(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        return {key: _finite(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner, depth + 1) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and value.bit_length() > 1000:  # too large for a float
        raise ValueError("a number of over 1,000 bits")
    return value


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Loader(yaml.SafeLoader):
    """Reads numbers as OmegaConf writes them (``1e-05``), and dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (a class attribute in yaml too)
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which a run never writes")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
