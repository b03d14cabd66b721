"""Which tokens of a document are read: windows, head, head and tail, and whole first sentences."""

import itertools
import random

import numpy as np
import pytest

from warmstart.config.data import Truncation
from warmstart.data.collate import Collator
from warmstart.data.sources.synthetic import read_synthetic
from warmstart.data.tokenization.cache import tokenized_split
from warmstart.data.tokenization.source_layout import UNLIMITED, SourceLayout
from warmstart.errors import UserError

EXAMPLES = read_synthetic(None)[0]["train"]
TEXTS = [example.document for example in EXAMPLES]
LONG = " ".join(TEXTS[:6])


def body(pair, text):
    return pair.encode_sources([text], UNLIMITED, special=False)[0]


def text_of(pair, row):
    """Return the ids of the text in a row, without special tokens."""
    special = {pair.source.cls_token_id, pair.source.sep_token_id, pair.source.bos_token_id, pair.source.eos_token_id}
    return [i for i in row if i not in special]


def test_the_plain_layout_gives_the_ids_of_the_pair_and_its_cache(family_pair):
    assert SourceLayout(20).encode(family_pair, TEXTS) == family_pair.encode_sources(TEXTS, 20)
    assert SourceLayout(20).fingerprint() == {"max_source_length": 20}


def test_documents_that_fit_into_one_window_are_the_same_in_any_layout(family_pair):
    whole = family_pair.encode_sources(TEXTS, 500)
    for options in ({"windows": 3}, {"windows": 2, "overlap": 7}, {"truncation": Truncation.head_tail}):
        assert SourceLayout(500, **options).encode(family_pair, [*TEXTS, ""]) == [
            *whole,
            *family_pair.encode_sources([""], 500),
        ]


def test_windows_have_special_tokens_and_hold_the_text_once(family_pair):
    ids = body(family_pair, LONG)
    (short,) = family_pair.encode_sources([LONG], 30)
    added = len(short) - len(text_of(family_pair, short))
    layout = SourceLayout(30, windows=100)
    (row,) = layout.encode(family_pair, [LONG])
    windows = layout.windows_of(row)
    assert windows[0] == short
    assert [len(window) for window in windows[:-1]] == [30] * (len(windows) - 1)
    assert all(len(window) - len(text_of(family_pair, window)) == added for window in windows)
    assert text_of(family_pair, row) == ids
    (two,) = SourceLayout(30, windows=2).encode(family_pair, [LONG])
    assert two == row[:60]


def test_the_end_of_a_window_is_repeated_at_the_start_of_the_next(pair):
    layout = SourceLayout(30, windows=100, overlap=5)
    (row,) = layout.encode(pair, [LONG])
    texts = [text_of(pair, window) for window in layout.windows_of(row)]
    for before, after in itertools.pairwise(texts):
        assert before[-5:] == after[:5]
    assert texts[0] + [i for text in texts[1:] for i in text[5:]] == body(pair, LONG)
    assert len(texts[-1]) > 5  # no window that only repeats


def test_a_window_that_only_repeats_is_an_error(pair):
    with pytest.raises(UserError, match=r"data\.window_overlap=28 leaves no new token.* adds 2 special tokens"):
        SourceLayout(30, windows=2, overlap=28).encode(pair, [LONG])


@pytest.mark.parametrize("windows", [1, 3])
def test_head_and_tail(pair, windows):
    ids = body(pair, LONG)
    layout = SourceLayout(31, windows=windows, truncation=Truncation.head_tail)
    (row,), cut = layout.encode_and_count(pair, [LONG])
    kept = text_of(pair, row)
    assert len(kept) == windows * 29
    head = -(-len(kept) // 2)
    assert kept == ids[:head] + ids[-(len(kept) - head) :]
    assert cut == 1
    assert len(row) == layout.longest


@pytest.mark.parametrize("windows", [1, 2])
def test_lead_sentences_are_whole_and_as_many_as_fit(family_pair, windows):
    layout = SourceLayout(70, windows=windows, truncation=Truncation.lead_sentences)
    (row,) = layout.encode(family_pair, [LONG])
    room = windows * len(text_of(family_pair, family_pair.encode_sources([LONG], 70)[0]))
    ends = [i + 1 for i, letter in enumerate(LONG) if letter == "." and LONG[i + 1 : i + 2] in (" ", "")]
    fitting = [end for end in ends if len(body(family_pair, LONG[:end])) <= room]
    assert text_of(family_pair, row) == body(family_pair, LONG[: fitting[-1]])
    assert len(fitting) > 1


def test_lead_sentences_of_lines_other_languages_and_a_first_sentence_that_does_not_fit(pair):
    def kept(text, window, language="en"):
        layout = SourceLayout(window, truncation=Truncation.lead_sentences, language=language)
        return text_of(pair, layout.encode(pair, [text])[0])

    lines = "A town.\nA bridge! A river was closed.\n\nThe school and the harbour and the library were built."
    assert kept(lines, 20) == body(pair, "A town.\nA bridge! A river was closed.")
    hindi = "नदी बंद है। पुल खुला है। " * 4
    first = body(pair, "नदी बंद है।")
    assert kept(hindi, len(first) + 3, "hi") == first
    endless = "the river and the bridge " * 40
    assert kept(endless, 12) == body(pair, endless)[:10]
    assert kept("", 12) == []


def test_lead_sentences_do_not_depend_on_how_much_text_follows(pair):
    """Only a first part of a long text is split into sentences."""
    rng = random.Random(1)
    for _ in range(20):
        dense = "".join(rng.choice("xqzjkvw") for _ in range(rng.randint(1, 60)))
        sentences = rng.choices([*TEXTS, f"{dense}.", "A town."], k=30)
        layout = SourceLayout(rng.randint(10, 80), truncation=Truncation.lead_sentences)
        few = layout.encode(pair, [" ".join(sentences)])
        assert few == layout.encode(pair, [" ".join([*sentences, *TEXTS * 3])])


def test_what_was_cut_is_counted_in_the_cache(pair, tmp_path):
    options = {"texts_fingerprint": "texts", "max_target_length": 12, "cache_dir": str(tmp_path), "name": "train"}
    lengths = [len(body(pair, text)) for text in TEXTS]
    for layout in (
        SourceLayout(40, truncation=Truncation.lead_sentences),
        SourceLayout(40, truncation=Truncation.head_tail),
    ):
        split = tokenized_split(EXAMPLES, pair, layout=layout, **options)
        assert split.cut_sources == sum(length > 38 for length in lengths) > 0
    assert tokenized_split(EXAMPLES, pair, layout=SourceLayout(40), **options).cut_sources is None


def test_layouts_have_caches_of_their_own():
    layouts = [
        SourceLayout(40),
        SourceLayout(40, windows=2),
        SourceLayout(40, windows=2, overlap=3),
        SourceLayout(40, truncation=Truncation.head_tail),
        *(SourceLayout(40, truncation=Truncation.lead_sentences, language=code) for code in ("en", "de")),
    ]
    assert len({str(layout.fingerprint()) for layout in layouts}) == len(layouts)
    assert SourceLayout(40, language="de").fingerprint() == SourceLayout(40).fingerprint()


def test_estimated_lengths(pair):
    whole = np.array([len(row) for row in pair.encode_sources([*TEXTS, LONG], UNLIMITED)])
    assert (SourceLayout(30).estimated_lengths(whole) == np.minimum(whole, 30)).all()
    layout = SourceLayout(30, windows=4, overlap=5)
    expected = [len(row) for row in layout.encode(pair, [*TEXTS, LONG])]
    assert layout.estimated_lengths(whole).tolist() == expected
    assert [layout.padded_length(n) for n in (3, 30, 31, 60, 61)] == [3, 30, 60, 60, 90]


def test_a_batch_has_a_dimension_of_windows(pair):
    layout = SourceLayout(30, windows=4)
    rows = [np.array(row) for row in layout.encode(pair, [TEXTS[0][:40], LONG, TEXTS[0] + TEXTS[1]])]
    batch = Collator(pair.source_pad_id, layout=layout)([(i, row, np.array([5])) for i, row in enumerate(rows)])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids.shape == mask.shape == (3, 4, 30)
    for row, its_ids, its_mask in zip(rows, ids, mask, strict=True):
        assert its_ids[its_mask == 1].tolist() == row.tolist()
        assert (its_ids[its_mask == 0] == pair.source_pad_id).all()
    short = [(i, row, np.array([5])) for i, row in enumerate(rows[:1])]
    plain = Collator(pair.source_pad_id)(short)
    assert Collator(pair.source_pad_id, layout=layout)(short)["input_ids"].tolist() == plain["input_ids"].tolist()
