"""Each yaml of a data set of the hub reads a table with the true schema of that data set, through datasets itself."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from warmstart.cli.main import config_dir
from warmstart.config.data import DataKind
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError

TEXT = pa.string()
TEXTS = pa.list_(TEXT)
PAIR = {"translation": pa.struct({"de": TEXT, "en": TEXT})}
STEPS = {
    "section_name": TEXTS,
    "document": TEXTS,
    "summary": TEXTS,
    "english_url": TEXTS,
    "english_section_name": TEXTS,
}
DIALOGUE = {"id": TEXT, "dialogue": TEXT, "summary": TEXT}
PAPER = {"article": TEXT, "abstract": TEXT}
NEWS = {"document": TEXT, "summary": TEXT}
FUSED = [f"{kind}_{place}_sentence" for kind in ("coherent", "incoherent") for place in ("first", "second")]
CODE = dict.fromkeys(("repo", "path", "func_name", "original_string", "language", "code", "docstring", "url"), TEXT)
SCHEMAS = {
    "cnn_dailymail": {"article": TEXT, "highlights": TEXT, "id": TEXT},
    "xsum": {**NEWS, "id": TEXT},
    "gigaword": NEWS,
    "samsum": DIALOGUE,
    "dialogsum": {**DIALOGUE, "topic": TEXT},
    "multi_news": NEWS,
    "arxiv": PAPER,
    "pubmed": PAPER,
    "billsum": {"text": TEXT, "summary": TEXT, "title": TEXT},
    "xlsum": {"id": TEXT, "url": TEXT, "title": TEXT, "summary": TEXT, "text": TEXT},
    "wikilingua": {"url": TEXT, "article": pa.struct(STEPS)},
    "wmt14_de_en": PAIR,
    "wmt14_en_de": PAIR,
    "opus_books": {"id": TEXT, **PAIR},
    "iwslt": PAIR,
    "discofuse": {
        "connective_string": TEXT,
        "discourse_type": TEXT,
        "has_coref_type_pronoun": pa.float32(),
        **dict.fromkeys(FUSED, TEXT),
    },
    "wikisplit": dict.fromkeys(("complex_sentence", "simple_sentence_1", "simple_sentence_2"), TEXT),
    "asset": {"original": TEXT, "simplifications": TEXTS},
    "code_docstrings": {"id": pa.int32(), **CODE, "code_tokens": TEXTS, "docstring_tokens": TEXTS, "sha": TEXT},
}
PAIRS = {  # the first training pair, from the values of ``cell``
    "wikilingua": ("{0} document 1\n{0} document 2", "{0} summary 1\n{0} summary 2"),
    "wmt14_de_en": ("{0} de", "{0} en"),
    "wmt14_en_de": ("{0} en", "{0} de"),
    "opus_books": ("{0} de", "{0} en"),
    "iwslt": ("{0} de", "{0} en"),
    "discofuse": (
        "{0} incoherent_first_sentence {0} incoherent_second_sentence",
        "{0} coherent_first_sentence {0} coherent_second_sentence",
    ),
    "wikisplit": ("{0} complex_sentence", "{0} simple_sentence_1 {0} simple_sentence_2"),
    "asset": ("{0} original", "{0} simplifications 1"),
    "code_docstrings": ("{0} code_tokens 1 {0} code_tokens 2", "{0} docstring_tokens 1 {0} docstring_tokens 2"),
}
SPLITS_OF = {
    "billsum": ("train", "test", "ca_test"),
    "asset": ("validation", "test"),
    **dict.fromkeys(("wikilingua", "opus_books"), ("train",)),
}
ROWS = 60


def cell(kind, name, row):
    if pa.types.is_struct(kind):
        return {field.name: cell(field.type, field.name, row) for field in kind}
    if pa.types.is_list(kind):
        return [f"{row} {name} {i}" for i in (1, 2)]
    return f"{row} {name}" if pa.types.is_string(kind) else int(row.split("-")[1])


def write(folder, name, schema):
    """Write the splits as the hub stores them, each in two shards."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS_OF.get(name, SPLITS):
        rows = [{key: cell(kind, key, f"{split}-{i}") for key, kind in schema.items()} for i in range(ROWS)]
        for shard in range(2):
            table = pa.Table.from_pylist(rows[shard::2], schema=pa.schema(schema))
            pyarrow.parquet.write_table(table, folder / f"{split}-0000{shard}-of-00002.parquet")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def test_every_yaml_of_the_hub_has_a_schema(settings_of):
    hub = set()
    for path in Path(config_dir()).glob("data/*.yaml"):
        data = settings_of(f"data={path.stem}").data
        if data.kind in (DataKind.hub, DataKind.cnn_dailymail):
            hub.add(data.name)
            assert data.name == path.stem
            assert data.attribution
            assert data.size.examples
    assert hub == SCHEMAS.keys() | {"aclsum"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_yaml_reads_the_columns_and_splits_of_the_hub(name, settings_of, tmp_path):
    data = settings_of(f"data={name}").data
    write(tmp_path / "copy" / (data.subset or "data"), name, SCHEMAS[name])
    source = load_source(settings_of(f"data={name}", f"data.path={tmp_path / 'copy'}").data)
    first = source.split("train")[0]
    row = f"{data.splits.train}-{first.document.split('-')[1].split(' ')[0]}"
    pair = PAIRS.get(name, (f"{{0}} {data.document_column}", f"{{0}} {data.summary_column}"))
    assert (first.document, first.summary) == tuple(text.format(row) for text in pair)
    if data.id_column:
        assert first.id == (f"{row} id" if pa.types.is_string(SCHEMAS[name]["id"]) else row.split("-")[1])
    sizes = {split: len(source.split(split)) for split in SPLITS}
    taken = [split for split in ("validation", "test") if getattr(data.splits, split) is None]
    assert all(sizes[split] == ROWS for split in ("validation", "test") if split not in taken)
    assert sizes["train"] == ROWS - sum(sizes[split] for split in taken)
    assert all(1 <= sizes[split] < ROWS / 4 for split in taken)
    documents = [{example.document for example in source.split(split)} for split in SPLITS]
    assert len(set().union(*documents)) == sum(map(len, documents))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "wmt14_de_en",
            ["data.document_column=translation.fr"],
            r"translation\.fr is not a column .*'translation\.de'",
        ),
        ("wmt14_de_en", ["data.document_column=translation"], r"holds struct.*, not text.*'translation\.de'"),
        ("billsum", ["data.splits.test=california"], r"the splits 'ca_test', 'test', 'train', but not 'california'"),
        ("xsum", ["data.id_column=key"], r"data\.id_column=key is not a column .*'id'"),
        ("xlsum", ["data.subset=englsh"], r"has no subset 'englsh'\. It has: 'english'"),
    ],
)
def test_what_is_there_is_listed(name, options, message, settings_of, tmp_path):
    data = settings_of(f"data={name}").data
    write(tmp_path / "copy" / (data.subset or "data"), name, SCHEMAS[name])
    with pytest.raises(UserError, match=message) as found:
        load_source(settings_of(f"data={name}", f"data.path={tmp_path / 'copy'}", *options).data)
    assert str(found.value).count("'") < 40


def test_aclsum_is_read_from_its_package(settings_of):
    source = load_source(settings_of("data=aclsum").data)
    assert [len(source.split(split)) for split in SPLITS] == [100, 50, 100]
    first = source.split("test")[0]
    assert len(first.document.split()) > 100 > len(first.summary.split())
    challenge = load_source(settings_of("data=aclsum", "data.summary_column=summary.challenge").data)
    assert challenge.split("test")[0].summary != first.summary
    with pytest.raises(UserError, match=r"It has: 'summary\.approach', 'summary\.outcome'"):
        load_source(settings_of("data=aclsum", "data.summary_column=summary.aspect").data)
