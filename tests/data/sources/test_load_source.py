"""Cleaning and limits of all sources, the synthetic texts, and the hub data set without a hub."""

import tempfile
import time

import pytest

from warmstart.config.data import DataKind, DataSettings, OnBadRow
from warmstart.data.sources.bad_rows import BadRows
from warmstart.data.sources.base import Example, LazyRows, Source
from warmstart.data.sources.hub import rows_of
from warmstart.data.sources.hub_rows import HubRows
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError


def synthetic(**kwargs):
    return load_source(DataSettings(name="written", kind=DataKind.written, **kwargs))


def test_synthetic_texts():
    source = synthetic()
    splits = {name: source.split(name) for name in ("train", "validation", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 32, "validation": 8, "test": 8}
    everything = [example for split in splits.values() for example in split]
    assert len({e.id for e in everything}) == len({e.document for e in everything}) == 48
    for example in everything:
        assert 40 < len(example.document.split()) < 90
        assert example.summary.endswith(".")
        assert "{" not in example.document + example.summary


def test_a_limit_takes_a_sample_that_is_the_same_in_every_run():
    source, every = synthetic(limit_train=5, limit_test=100), list(synthetic().split("train"))
    indices = [every.index(example) for example in source.split("train")]
    assert indices == sorted(indices)  # the order of the file
    assert indices != list(range(5))
    assert indices == [6, 11, 13, 23, 28]  # must never change: results are comparable only on the same examples
    assert set(source.split("train")) < set(synthetic(limit_train=9).split("train"))
    assert source.report == {
        **{"train_read": 32, "validation_read": 8, "test_read": 8},
        **{"train_examples": 5, "validation_examples": 8, "test_examples": 8},
        **{"train_sampled": 1, "validation_sampled": 0, "test_sampled": 0},
    }
    with pytest.raises(UserError, match="limit_train=0"):
        synthetic(limit_train=0)


def test_a_fingerprint_depends_only_on_the_texts():
    assert (
        synthetic().fingerprint() == synthetic().fingerprint() == synthetic(clean=["strip_cnn_dateline"]).fingerprint()
    )
    limited = synthetic(limit_train=5)
    assert limited.fingerprint() != synthetic().fingerprint()
    assert limited.split_fingerprint("test") == synthetic().split_fingerprint("test")


def test_unknown_split():
    with pytest.raises(UserError, match="train, validation, test"):
        synthetic().split("dev")


@pytest.fixture
def hub_like():
    """A data set with the hub's columns, as ``datasets`` returns it."""
    datasets = pytest.importorskip("datasets")
    rows = {
        "id": ["a", "b", "c"],
        "article": ["LONDON (CNN) -- One ferry.", "(CNN)Two ferries.", "Three ferries."],
        "highlights": ["NEW: One .\nA ferry .", 'NEW: Garbled"?two .', "NEW: Three ."],
    }
    return datasets.DatasetDict({s: datasets.Dataset.from_dict(rows) for s in ("train", "validation", "test")})


def cnn(monkeypatch, loaded, **kwargs):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    return load_source(DataSettings(name="cnn_dailymail", kind=DataKind.cnn_dailymail, **kwargs))


def test_hub_rows_are_cleaned_lazily_and_references_are_unchanged(hub_like, monkeypatch):
    source = cnn(monkeypatch, hub_like, clean=["strip_cnn_dateline", "strip_new_marker", "drop_garbled"])
    assert list(source.split("train")) == [
        Example("a", "One ferry.", "One .\nA ferry ."),
        Example("c", "Three ferries.", "Three ."),
    ]
    assert source.split("train")[1].id == "c"
    assert [e.summary for e in source.split("test")] == hub_like["test"]["highlights"]
    assert [e.document for e in source.split("test")[:2]] == ["One ferry.", "Two ferries."]
    limited = cnn(monkeypatch, hub_like, clean=["drop_garbled"], limit_train=2, limit_validation=1)  # b is garbled
    assert [e.id for e in limited.split("train")] == ["a", "c"]
    assert len(limited.split("validation")) == 1


def test_the_fingerprint_of_hub_rows_depends_on_the_cleaning(hub_like, monkeypatch):
    plain = cnn(monkeypatch, hub_like)
    assert plain.fingerprint() == cnn(monkeypatch, hub_like).fingerprint()
    assert plain.fingerprint() != cnn(monkeypatch, hub_like, clean=["strip_new_marker"]).fingerprint()


def test_a_limit_samples_rows_on_disk_too(hub_like, monkeypatch):
    import datasets

    columns = {name: [f"{name} {i}" for i in range(200)] for name in ("id", "article", "highlights")}
    columns["highlights"][::2] = ['Garbled"?text.'] * 100
    hub_like["train"] = datasets.Dataset.from_dict(columns)
    for clean in ([], ["drop_garbled"]):
        rows = cnn(monkeypatch, hub_like, clean=clean, limit_train=20).split("train")
        indices = [int(example.id.split()[1]) for example in rows]
        assert indices == sorted(indices)
        assert len(indices) == 20
        assert max(indices) > 150
    assert all(index % 2 for index in indices)


MANY = 60_000


def many_rows(**changed):
    """More rows than are read for a fingerprint; ``changed`` changes the texts of row 7."""
    row = {
        "id": "row",
        "article": "One ferry is late, and nobody knows why, so all wait at the pier.",
        "highlights": "Late.",
    }
    columns = {name: [f"{text} {i}" for i in range(MANY)] for name, text in row.items()}
    for name, text in changed.items():
        columns[name][7] = text
    return columns


@pytest.mark.parametrize("column", ["article", "highlights", "id"])
def test_one_changed_row_of_a_large_hub_split_changes_its_fingerprint(column, hub_like, monkeypatch, tmp_path):
    import datasets

    def fingerprint(rows, **kwargs):
        """As a separate run does, from Arrow files."""
        folder = tempfile.mkdtemp(dir=tmp_path)
        datasets.Dataset.from_dict(rows).save_to_disk(folder)
        hub_like["train"] = datasets.load_from_disk(folder)
        return cnn(monkeypatch, hub_like, **kwargs).split_fingerprint("train")

    plain = fingerprint(many_rows())
    assert fingerprint(many_rows(**{column: "other"})) != plain
    assert fingerprint(many_rows(), clean=["strip_new_marker"]) != plain
    assert fingerprint(many_rows(), limit_train=MANY - 1) != plain
    of_a_sample = fingerprint(many_rows(), limit_train=MANY - 1)
    with monkeypatch.context() as patched:  # the same number of other rows
        patched.setattr("warmstart.data.sources.load._random_order", lambda rows, split: list(range(rows)))
        assert fingerprint(many_rows(), limit_train=MANY - 1) != of_a_sample
    monkeypatch.setattr(HubRows, "_read", lambda *_: pytest.fail("a row was read, which takes minutes for all"))
    assert fingerprint(many_rows()) == plain


class Counted(LazyRows):
    """Rows without a hash of their contents."""

    def __init__(self, changed=None):
        self.changed = changed

    def __len__(self):
        return MANY

    def _read(self, index):
        return Example(str(index), f"Document {index}.", "Other." if index == self.changed else "Summary.")


def test_a_large_split_without_a_hash_is_read_whole():
    plain, same, other = (
        Source({"train": Counted(changed)}, name="x", report={}).split_fingerprint("train")
        for changed in (None, None, 7)
    )
    assert plain == same
    assert plain != other


def test_hub_columns(hub_like):
    other = hub_like.rename_column("article", "body")
    settings = DataSettings(name="x", document_column="body", summary_column="highlights")
    assert rows_of(other, settings, BadRows("hub", OnBadRow.fail))["train"][2] == Example(
        "c", "Three ferries.", "NEW: Three ."
    )
    with pytest.raises(UserError, match=r"data.document_column=article.*body"):
        rows_of(other, DataSettings(name="x"), BadRows("hub", OnBadRow.fail))
    with pytest.raises(UserError, match=r"data.id_column=key.*article"):
        rows_of(hub_like, DataSettings(name="x", id_column="key"), BadRows("hub", OnBadRow.fail))
    del hub_like["test"]
    with pytest.raises(UserError, match="but not 'test'"):
        rows_of(hub_like, DataSettings(name="x"), BadRows("hub", OnBadRow.fail))


def test_an_unreachable_hub_is_reported_at_once_with_alternatives(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    began = time.monotonic()
    with pytest.raises(
        UserError, match=r"(?s)cannot be reached.*abisee/cnn_dailymail 3\.0\.0.*data=files.*data=short_descriptions"
    ):
        load_source(DataSettings(name="cnn_dailymail", kind=DataKind.cnn_dailymail))
    assert time.monotonic() - began < 10


def test_hub_rows_without_text_are_named_or_skipped(hub_like):
    import datasets

    rows = {"id": ["a", "b", "c"], "article": ["One.", " ", None], "highlights": ["1", "2", "3"]}
    hub_like["train"] = datasets.Dataset.from_dict(rows)
    settings = DataSettings(name="x", document_column="article", summary_column="highlights")
    with pytest.raises(UserError, match="hub: train row 2 has an empty document"):
        rows_of(hub_like, settings, BadRows("hub", OnBadRow.fail))
    bad = BadRows("hub", OnBadRow.skip)
    assert list(rows_of(hub_like, settings, bad)["train"]) == [Example("a", "One.", "1")]
    assert bad.report(9) == {"read": 9, "kept": 7, "skipped": 2, "skipped_empty_document": 2}
    hub_like["train"] = datasets.Dataset.from_dict(rows | {"article": [1, 2, 3]})
    with pytest.raises(UserError, match="column article holds int64, not text"):
        rows_of(hub_like, settings, BadRows("hub", OnBadRow.skip))
