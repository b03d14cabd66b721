"""Package descriptions from an index of apt, packed in each of its ways."""

import gzip
import lzma

import pyarrow as pa
import pytest

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError


def lz4(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACKED = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".lz4": lz4}
LONG = " This program number {0} reads texts\n and writes them.\n .\n It is small.\n"
LANG = " Dieses Programm Nummer {0} liest Texte.\n .\n Es ist klein.\n"


def index(folder, suffix="", german=True):
    """60 packages of 50 source packages: the last ten are further binaries of the first ten."""
    folder.mkdir(exist_ok=True)
    stanzas = {"Packages": "", "Translation-en": "", "Translation-de": ""}
    for i in range(60):
        name = f"p{i:02d}"
        source = f"Source: p{i - 50:02d} (1.0-2)\n" if i >= 50 else ""
        stanzas["Packages"] += f"Package: {name}\n{source}Version: 1\n\n"
        stanzas["Translation-en"] += f"Package: {name}\nDescription-md5: 0\nDescription-en: reader of {i} texts\n"
        stanzas["Translation-en"] += LONG.format(i) + "\n"
        stanzas["Translation-de"] += f"Package: {name}\nDescription-md5: 0\nDescription-de: Leser von {i} Texten\n"
        stanzas["Translation-de"] += LANG.format(i) + "\n"
    for kind, text in stanzas.items():
        if kind != "Translation-de" or german:
            place = "binary-amd64_Packages" if kind == "Packages" else f"i18n_{kind}"
            (folder / f"deb.debian.org_dists_x_main_{place}{suffix}").write_bytes(PACKED[suffix](text.encode()))
    (folder / "lock").touch()
    return folder


def load(folder, document="long", summary="short"):
    columns = {"document_column": document, "summary_column": summary}
    return load_source(DataSettings(name="debian", kind=DataKind.debian, path=str(folder), **columns))


@pytest.mark.parametrize("suffix", PACKED)
def test_each_source_package_gives_one_pair(suffix, tmp_path):
    source = load(index(tmp_path / "lists", suffix))
    examples = {example.id: example for split in SPLITS for example in source.split(split)}
    assert examples.keys() == {f"p{i:02d}" for i in range(50)}
    assert examples["p07"].document == "This program number 7 reads texts and writes them.\nIt is small."
    assert examples["p07"].summary == "reader of 7 texts"
    assert len(source.split("train")) > 35
    assert list(load(tmp_path / "lists").split("train")) == list(source.split("train"))


def test_translations_are_synopses_and_paragraphs(tmp_path):
    source = load(index(tmp_path / "lists"), "en", "de")
    pairs = {example.document: example.summary for split in SPLITS for example in source.split(split)}
    assert pairs["reader of 7 texts"] == "Leser von 7 Texten"
    assert pairs["This program number 7 reads texts and writes them."] == "Dieses Programm Nummer 7 liest Texte."
    assert len(pairs) == 50 + 50 + 1
    assert source.report["duplicate"] == 49
    of_package = {e.id.rpartition("-")[0]: split for split in SPLITS for e in source.split(split)}
    assert all(of_package[e.id.rpartition("-")[0]] == split for split in SPLITS for e in source.split(split))


def test_a_missing_index_and_a_wrong_column_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no index Translation-en.*apt-get update .*Languages=en"):
        load(tmp_path / "empty")
    with pytest.raises(UserError, match=r"Choose long and short, or two of its languages: 'en'\."):
        load(index(tmp_path / "lists", german=False), "en", "de")
    next((tmp_path / "lists").glob("*Translation-en")).rename(tmp_path / "lists" / "x_Translation-en.gz")
    with pytest.raises(UserError, match=r"x_Translation-en\.gz is a damaged index"):
        load(tmp_path / "lists")


def test_a_package_named_like_a_paragraph_of_another_has_its_own_id(tmp_path):
    """The pairs of p07 are named p07-0 and p07-1, and a package may be named p07-1."""
    folder = index(tmp_path / "lists")
    for language in ("en", "de"):
        (path,) = folder.glob(f"*Translation-{language}")
        more = (f"Package: p{i:02d}-1\nDescription-{language}: synopsis {i} in {language}\n\n" for i in range(50))
        path.write_text(path.read_text() + "".join(more))
    source = load(folder, "en", "de")
    for split in SPLITS:
        ids = [example.id for example in source.split(split)]
        assert len(set(ids)) == len(ids)
