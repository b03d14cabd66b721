"""The short descriptions of the installed package: number of pairs, cleaning, split and order by title."""

import json
from collections import Counter

import pytest

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.sources.base import Example
from warmstart.data.sources.load import load_source
from warmstart.data.sources.short_descriptions import (
    PACKAGE_PATH,
    absent_years,
    split_by_title,
    usable_pairs,
    without_absent_numbers,
)
from warmstart.errors import UserError

SPLITS = ("train", "validation", "test")
LEAD = "Ada Hill is a composer of chamber music and of songs who has lived in a small town by the sea for long."


def settings(**changed):
    columns = {"document_column": "extract", "summary_column": "description"}
    return DataSettings(name="short_descriptions", kind=DataKind.short_descriptions, **(columns | changed))


@pytest.fixture(scope="module")
def cleaned():
    return load_source(settings())


@pytest.fixture(scope="module")
def raw():
    return load_source(settings(raw_targets=True))


def test_usable_pairs_of_the_package(raw, cleaned):
    assert [len(raw.split(name)) for name in SPLITS] == [8565, 381, 779]
    assert [len(cleaned.split(name)) for name in SPLITS] == [8419, 376, 758]
    report = cleaned.report
    reasons = ("short_document", "short_target", "absent_year", "short_cleaned_target")
    dropped = sum(report[reason] for reason in reasons)
    assert report["rows"] == 10_033 == report["pairs"] + dropped
    examples = [example for name in SPLITS for example in raw.split(name)]
    assert sum(len(e.document.split()) for e in examples) / len(examples) == pytest.approx(77.9, abs=0.1)
    assert sum(len(e.summary.split()) for e in examples) / len(examples) == pytest.approx(5.7, abs=0.1)
    assert min(len(e.document.split()) for e in examples) == 20
    assert min(len(e.summary.split()) for e in examples) == 2


@pytest.mark.parametrize("split", SPLITS)
def test_no_cleaned_target_has_a_year_that_its_source_lacks(split, raw, cleaned):
    assert not any(absent_years(e.summary, e.document) for e in cleaned.split(split))
    with_years = {e.id for e in raw.split(split) if absent_years(e.summary, e.document)}
    assert len(with_years) / len(raw.split(split)) == pytest.approx(0.16, abs=0.005)
    targets = {e.id: e.summary for e in cleaned.split(split)}
    assert all(len(target.split()) >= 2 for target in targets.values())
    changed = {e.id for e in raw.split(split) if targets.get(e.id) != e.summary}
    assert with_years <= changed
    # Cleaning changes targets only: a raw and a clean run have their documents in common, in the same order.
    documents = {e.id: e.document for e in raw.split(split)}
    assert [(e.id, e.document) for e in cleaned.split(split)] == [p for p in documents.items() if p[0] in targets]


def test_no_document_is_in_two_splits(raw):
    examples = [example for name in SPLITS for example in raw.split(name)]
    assert len({e.id for e in examples}) == len({e.document.casefold() for e in examples}) == len(examples)


def test_splits_and_order_do_not_depend_on_the_order_of_the_file(tmp_path):
    entries = {f"Title {i}": {"extract": f"{LEAD} {i}", "description": f"Composer number {i}"} for i in range(200)}
    found = []
    for number, titles in enumerate((list(entries), list(reversed(entries)), sorted(entries)[:150])):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({title: entries[title] for title in titles}))
        source = load_source(settings(path=str(path)))
        found.append([[e.id for e in source.split(name)] for name in SPLITS])
    every, reversed_, part = found
    assert every == reversed_
    kept = set(sorted(entries)[:150])
    assert [[title for title in titles if title in kept] for titles in every] == part
    assert every[0] != sorted(every[0])
    assert [len(titles) for titles in every] == [169, 16, 15]


def test_two_entries_with_one_document_are_one_example():
    entries = [Example(f"Title {i}", f"{LEAD} {i // 40}" if i % 40 else LEAD.upper(), "Ada Hill") for i in range(80)]
    counts = Counter()
    pairs = usable_pairs(entries, counts)
    splits = split_by_title(pairs)
    assert sum(map(len, splits.values())) == 3
    assert counts["duplicate"] == 77
    assert [p.example for p in pairs] == [p.example for p in usable_pairs(reversed(entries), Counter())]


@pytest.mark.parametrize(
    ("target", "document", "cleaned", "years"),
    [
        ("Swedish actress (1905\u20131990)", "An actress.", "Swedish actress", set()),
        ("Swedish actress (1905\u20131990)", "She lived from 1905.", "Swedish actress", set()),
        ("Swedish actress (1905\u20131990)", "She lived from 1905 to 1990.", None, set()),
        ("Roman poet (65\u20138 BC)", "A poet.", "Roman poet", set()),
        ("Gas (C2H6)", "A gas.", "Gas", set()),
        ("Herbivore (large)", "It eats plants.", None, set()),
        ("1781 book by Kant", "A book by Kant.", None, {"1781"}),
        ("1781 book by Kant", "A book by Kant, of 1781.", None, set()),
        ("1781 book by Kant", "A book by Kant, of 17815 pages.", None, {"1781"}),
        ("State of the 1970s (681\u20131018)", "A state.", "State of the 1970s", {"1970"}),
        ("1868\u201369 novel", "It was printed in 1868 and 1869.", None, set()),
        ("1868\u201369 novel", "It was printed in 1868.", None, {"1869"}),
        ("Novel of 1869", "It was printed in 1868\u201369.", None, set()),
        ("Last symphony (1788) by Mozart", "A symphony.", None, {"1788"}),
        ("King until 30 BC", "A king.", None, {"30"}),
        ("King until AD 30", "A king.", None, {"30"}),
        ("9th-century state", "A state of the ninth century.", None, set()),
    ],
)
def test_cleaning_of_one_target(target, document, cleaned, years):
    found = without_absent_numbers(target, document)
    assert found == (target if cleaned is None else cleaned)
    assert absent_years(found, document) == years


def test_cleaning_of_entries():
    entries = [
        Example("a", LEAD, "English composer (born 1950)"),
        Example("b", f"{LEAD} Also.", "1781 book by Kant"),
        Example("c", f"{LEAD} Or.", "Composer (1950\u20132020)"),
        Example("d", f"{LEAD} Nor.", "Composer"),
        Example("e", "A short lead.", "A short description"),
    ]
    counts = Counter()
    (pair,) = usable_pairs(entries, counts)
    assert pair.example == Example("a", LEAD, "English composer")
    assert dict(counts) == {
        **{"rows": 5, "pairs": 1, "cut_bracket": 1},
        **{"absent_year": 1, "short_cleaned_target": 1, "short_target": 1, "short_document": 1},
    }
    raw = {pair.example.id: pair.example.summary for pair in usable_pairs(entries, Counter(), SPLITS)}
    assert raw == {e.id: e.summary for e in entries[:3]}


def test_raw_splits_leave_the_other_splits_cleaned(raw, cleaned):
    mixed = load_source(settings(raw_targets=True, raw_splits=["train", "validation"]))
    texts = {name: [source.split(split) for split in SPLITS] for name, source in (("raw", raw), ("clean", cleaned))}
    assert [mixed.split(split) for split in SPLITS] == [*texts["raw"][:2], texts["clean"][2]]
    assert texts["raw"][2] != texts["clean"][2]
    unused = load_source(settings(raw_splits=["train"]))
    assert [unused.split(split) for split in SPLITS] == texts["clean"]


def test_raw_targets_have_another_fingerprint(raw, cleaned):
    for split in SPLITS:
        assert raw.split_fingerprint(split) != cleaned.split_fingerprint(split)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"no-such-package.*pip install --no-deps no-such-package"):
        load_source(settings(path="package_file:no-such-package/x.json"))
    path = tmp_path / "x.json"
    for text, match in (
        ("{", "cannot be read.*pip install"),
        ("[1]", r"found: \[1\]"),
        ('{"A": {"extract": "x"}}', r"data\.summary_column=description.*extract"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            load_source(settings(path=str(path)))
    entries = {"A": {"extract": LEAD, "description": "An artist"}, "B": {"extract": LEAD, "description": 7}, "C": 1}
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"entry 'B' has a description that is not text but int"):
        load_source(settings(path=str(path)))
    report = load_source(settings(on_bad_row="skip", path=PACKAGE_PATH)).report
    assert report["skipped"] == 0
