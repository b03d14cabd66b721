"""A data set of the hub from a local folder: the hub's layout, save_to_disk, and the authors' original files."""

import gzip
import hashlib
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from warmstart.config.data import DataKind, DataSettings, OnBadRow, SplitSettings
from warmstart.data.hub_access import Unreachable
from warmstart.data.sources.base import SPLITS, Example
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


def saved(folder):
    datasets.DatasetDict({split: datasets.Dataset.from_dict(rows_of(split)) for split in SPLITS}).save_to_disk(folder)
    return folder


def converted(folder):
    """A folder as the branch refs/convert/parquet has it."""
    for split in SPLITS:
        (folder / "3.0.0" / split).mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table(rows_of(split)), folder / f"3.0.0/{split}/0000.parquet")
    return folder


def older(folder):
    """A folder as earlier versions of that branch have it."""
    folder.mkdir()
    for split, name in zip(SPLITS, ("train", "val", "test"), strict=True):
        pyarrow.parquet.write_table(pyarrow.table(rows_of(split)), folder / f"cnn_dailymail-{name}.parquet")
    return folder


def lines(folder):
    folder.mkdir()
    for split in SPLITS:
        rows = pyarrow.table(rows_of(split)).to_pylist()
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return folder


LAYOUTS = {
    "readme": hub_folder,
    "no readme": lambda folder: hub_folder(folder, readme=False),
    "the folder of the subset": lambda folder: hub_folder(folder, readme=False) / "3.0.0",
    "pattern": lambda folder: hub_folder(folder, readme=False) / "3.0.0/*-of-00001.parquet",
    "converted": converted,
    "older": older,
    "save_to_disk": saved,
    "json lines": lines,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [DataKind.cnn_dailymail, DataKind.hub])
def test_a_copy_in_a_folder_is_read(kind, layout, tmp_path, monkeypatch):
    monkeypatch.setattr("warmstart.data.sources.hub.hub_reachable", lambda: pytest.fail("the hub was asked"))
    path = LAYOUTS[layout](tmp_path / "cnn")
    columns = {"document_column": "article", "summary_column": "highlights"} if kind is DataKind.hub else {}
    source = load_source(DataSettings(name="cnn", kind=kind, path=str(path), **columns))
    for split in SPLITS:
        found = [tuple(example) for example in source.split(split)]
        rows = rows_of(split)
        assert found == list(zip(rows["id"], rows["article"], rows["highlights"], strict=True))


def test_one_saved_split_is_divided(tmp_path):
    rows = {"article": [f"Article {i % 50}." for i in range(100)], "highlights": ["x"] * 100}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        UserError, match=r"has the splits 'train', but not 'validation'.*data\.splits\.validation.* null"
    ):
        load(tmp_path / "saved")
    source = load(tmp_path / "saved", splits=SplitSettings(validation=None, test=None))
    documents = {split: {example.document for example in source.split(split)} for split in SPLITS}
    assert sum(map(len, documents.values())) == 50
    assert sum(len(source.split(split)) for split in SPLITS) == 100
    again = load(tmp_path / "saved", splits=SplitSettings(validation=None, test=None))
    assert again.fingerprint() == source.fingerprint()


def test_test_documents_that_are_also_training_documents_are_reported(tmp_path, caplog):
    folder = hub_folder(tmp_path / "cnn", readme=False)
    rows = rows_of("test") | {"article": [rows_of("train")["article"][3], "new"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "3.0.0/test-00000-of-00001.parquet")
    source = load(folder)
    assert source.report["test_documents_in_train"] == 1
    assert "validation_documents_in_train" not in source.report
    assert "1 of 2 test documents are also training documents" in caplog.text


def test_hub_rows_of_lists_of_turns(tmp_path):
    turns = [[{"who": "A", "text": f"Hello {i}"}, {"who": "B", "text": "Bye"}] for i in range(8)]
    turns[3] = [{"who": "A", "text": " "}]
    datasets.Dataset.from_dict({"turns": turns, "gist": [f"gist {i}" for i in range(8)]}).save_to_disk(tmp_path / "x")
    options = {
        "document_column": "turns.text",
        "summary_column": "gist",
        "join": " / ",
        "splits": SplitSettings(validation=None, test=None),
    }
    with pytest.raises(UserError, match="train row 4 has an empty document"):
        load_source(DataSettings(name="x", kind=DataKind.hub, path=str(tmp_path / "x"), **options))
    source = load_source(
        DataSettings(name="x", kind=DataKind.hub, path=str(tmp_path / "x"), on_bad_row=OnBadRow.skip, **options)
    )
    found = {example.id: example.document for split in SPLITS for example in source.split(split)}
    assert found == {str(i): f"Hello {i} / Bye" for i in range(8) if i != 3}


URLS = {split: [f"http://web.archive.org/{split}/{i}" for i in range(4)] for split in SPLITS}
STORY = """LONDON, England (CNN) -- First line

Second line ends.
A caption

@highlight

One highlight

@highlight

NEW: Another one!
"""


def stories(folder, *, lists=True):
    for split, urls in URLS.items():
        (folder / "cnn" / "stories").mkdir(parents=True, exist_ok=True)
        for url in urls:
            name = hashlib.sha1(url.encode()).hexdigest()
            (folder / "cnn" / "stories" / f"{name}.story").write_text(STORY.replace("First", url))
        if lists:
            name = {"train": "all_train", "validation": "all_val", "test": "all_test"}[split]
            (folder / f"{name}.txt").write_text("\n".join(urls) + "\n")


def test_original_stories_give_the_texts_of_the_hub(tmp_path):
    stories(tmp_path / "cnn")
    source = load(tmp_path / "cnn")
    for split in SPLITS:
        examples = source.split(split)
        assert [example.id for example in examples] == [hashlib.sha1(u.encode()).hexdigest() for u in URLS[split]]
        # As datasets' script for version 3.0.0 wrote them.
        assert examples[1].document == (
            f"LONDON, England (CNN) -- {URLS[split][1]} line . Second line ends. A caption ."
        )
        assert examples[1].summary == "One highlight .\nNEW: Another one!"
    next((tmp_path / "cnn").rglob("*.story")).unlink()
    with pytest.raises(UserError, match=r"has no file"):
        load(tmp_path / "cnn")
    assert load(tmp_path / "cnn", on_bad_row=OnBadRow.skip).report["skipped_no_file"] == 1


def test_original_xsum_folders(tmp_path):
    for role in ("document", "summary"):
        (tmp_path / "xsum" / role).mkdir(parents=True)
        for i in range(9):
            (tmp_path / "xsum" / role / f"{i}.{role}").write_text(f"{role} {i}")
    ids = dict(zip(SPLITS, (["0", "4", "8"], ["1", "2"], ["7"]), strict=True))
    split_file = tmp_path / "xsum" / "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
    with pytest.raises(UserError, match=r"no json file with the ids of 'train', 'validation', 'test'"):
        load(tmp_path / "xsum")
    split_file.write_text(json.dumps(ids))
    source = load(tmp_path / "xsum")
    for split in SPLITS:
        assert list(source.split(split)) == [Example(i, f"document {i}", f"summary {i}") for i in ids[split]]


def damaged(folder):
    hub_folder(folder)
    (folder / "3.0.0" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 half of a download")


def incomplete(folder):
    hub_folder(folder, readme=False)
    (folder / "3.0.0" / "train-00000-of-00001.parquet").rename(folder / "3.0.0" / "train-00000-of-00002.parquet")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: stories(folder, lists=False), r"no list of URLs for 'train', .*all_train\.txt"),
        (incomplete, r"only 1 of 2 shards are there; missing: 'train-00001-of-00002'"),
        (damaged, r"3 \.parquet files.*[Pp]arquet"),
        (lambda folder: folder.mkdir(), r"Found nothing"),
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
