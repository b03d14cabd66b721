"""Fuzz the file readers, guided by coverage; run by hand, not by the test suite.

    pip install atheris
    python tests/fuzz/readers.py -max_total_time=300 CORPUS

Each input is a file of one type, with one setting for bad rows. It must give counts that add up or a ``UserError`` that
names the file; any other error, a hang (``-timeout``) or too much memory (``-rss_limit_mb``) is a finding.
"""

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["warmstart.data", "json", "csv"]):
    from warmstart.config.data import DataKind, DataSettings, OnBadRow
    from warmstart.data.sources.base import SPLITS
    from warmstart.data.sources.load import load_source
    from warmstart.data.sources.tables import SUFFIXES
    from warmstart.errors import UserError

HEAD = {
    ".jsonl": b'{"id": 1, "document": "a", "summary": "b"}\n{"id": 2, "document": "c", "summary": "d"}\n',
    ".csv": b"id,document,summary\n1,a,b\n2,c,d\n",
    ".tsv": b"id\tdocument\tsummary\n1\ta\tb\n2\tc\td\n",
}
logging.disable(logging.CRITICAL)
# In memory if possible, because each input is written and read once.
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def one_input(data: bytes) -> None:
    """Read a file of these bytes."""
    if len(data) < 2:
        return
    suffix = SUFFIXES[data[0] % len(SUFFIXES)]
    path = FOLDER / f"x{suffix}"
    path.write_bytes((HEAD.get(suffix, b"") if data[1] & 1 else b"") + data[2:])
    settings = DataSettings(
        name="x",
        kind=DataKind.files,
        path=str(path),
        cache_dir=str(FOLDER / "cache"),
        on_bad_row=OnBadRow.skip if data[1] & 2 else OnBadRow.fail,
        id_column="id" if data[1] & 4 else None,
    )
    try:
        source = load_source(settings)
    except UserError as error:
        if path.name not in str(error) and "are too few to split off" not in str(error):
            raise AssertionError(f"the file is not named: {error}") from error
    else:
        report = source.report
        assert report["read"] == report["kept"] + report["skipped"], report
        assert report["kept"] == sum(len(source.split(name)) for name in SPLITS), report
        for name in SPLITS:
            for example in source.split(name):
                example.document.encode(), example.summary.encode()
    finally:
        shutil.rmtree(FOLDER / "cache", ignore_errors=True)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
