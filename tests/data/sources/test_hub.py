"""CNN/DailyMail from a local folder, read by datasets itself, and the error if that fails."""

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.hub_access import Unreachable
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError

SIZES = dict(zip(SPLITS, (6, 3, 2), strict=True))


def rows_of(split):
    numbers = range(SIZES[split])
    return {
        "article": [f"Article {i} of {split}." for i in numbers],
        "highlights": [f"Highlight {i}." for i in numbers],
        "id": [f"{split}-{i}" for i in numbers],
    }


def hub_folder(folder, *, readme=True):
    """A folder as `hf download` writes it."""
    (folder / "3.0.0").mkdir(parents=True)
    for split in SPLITS:
        pyarrow.parquet.write_table(pyarrow.table(rows_of(split)), folder / f"3.0.0/{split}-00000-of-00001.parquet")
    if readme:
        files = "".join(f"  - split: {split}\n    path: 3.0.0/{split}-*\n" for split in SPLITS)
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: 3.0.0\n  data_files:\n{files}---\n")
    return folder


def load(path, **options):
    return load_source(DataSettings(name="cnn_dailymail", kind=DataKind.cnn_dailymail, path=str(path), **options))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize(("readme", "options"), [(True, {}), (False, {"subset": "default"})])
def test_a_folder_in_the_layout_of_the_hub_is_read(readme, options, tmp_path, monkeypatch):
    monkeypatch.setattr("warmstart.data.sources.hub.hub_reachable", lambda: pytest.fail("the hub was asked"))
    source = load(hub_folder(tmp_path / "cnn", readme=readme), **options)
    for split in SPLITS:
        found = [tuple(example) for example in source.split(split)]
        rows = rows_of(split)
        assert found == list(zip(rows["id"], rows["article"], rows["highlights"], strict=True))


def saved(folder):
    datasets.DatasetDict({split: datasets.Dataset.from_dict(rows_of(split)) for split in SPLITS}).save_to_disk(folder)


def stories(folder):
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.story").write_text(f"Article {i}.\n\n@highlight\n\nHighlight {i}.")


def damaged(folder):
    hub_folder(folder)
    (folder / "3.0.0" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 half of a download")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: hub_folder(folder, readme=False), r"3 \.parquet files.*'default'.*data\.subset=default"),
        (saved, r"a data set that save_to_disk wrote.*load_from_disk.*data=files"),
        (stories, r"12 \.story files such as '0\.story'.*x\.summary\.txt"),
        (damaged, r"3 \.parquet files.*[Pp]arquet"),
        (lambda folder: folder.mkdir(), r"found nothing"),
        (lambda folder: folder.write_bytes(b""), r"found a file.*data=files data\.path="),
    ],
)
def test_a_local_copy_that_cannot_be_read_is_described(make, message, tmp_path):
    make(tmp_path / "cnn")
    with pytest.raises(UserError, match=message) as found:
        load(tmp_path / "cnn")
    for other in ("cannot be reached", "hub was reached", "1.4 GB"):
        assert other not in str(found.value)


def test_a_mistyped_path_is_reported_with_similar_names(tmp_path):
    hub_folder(tmp_path / "cnn_dailymail")
    with pytest.raises(UserError, match=r"cnn_dailymial does not exist. In .*: 'cnn_dailymail'") as found:
        load(tmp_path / "cnn_dailymial")
    assert not isinstance(found.value, Unreachable)


def test_a_path_that_may_be_a_hub_id_is_reported_as_both():
    with pytest.raises(Unreachable, match=r"\(data/cnn 3\.0\.0, there is no local folder of that name either\)"):
        load("data/cnn")
