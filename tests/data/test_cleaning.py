"""Each cleaning step on the text that it targets, and on text that only resembles it."""

import pytest

from warmstart.data import cleaning
from warmstart.errors import UserError


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("strip_cnn_dateline", "LONDON, England (CNN) -- The ferry", "The ferry"),
        ("strip_cnn_dateline", "(CNN)The ferry", "The ferry"),
        ("strip_cnn_dateline", "Washington (CNN)The ferry", "The ferry"),
        ("strip_cnn_dateline", "St. John's, Newfoundland (CNN) - The ferry", "The ferry"),
        ("strip_cnn_dateline", "NEW YORK (CNN Student News) -- The ferry", "The ferry"),
        ("strip_cnn_dateline", "A man told the broadcaster (CNN) so", "A man told the broadcaster (CNN) so"),
        ("strip_wire_dateline", "MOSCOW, February 7. /TASS/. The ferry", "The ferry"),
        ("strip_wire_dateline", "BONN /Germany/, February 16. /TASS/ The ferry", "The ferry"),
        ("strip_wire_dateline", "SEOUL (Reuters) - The ferry", "The ferry"),
        ("strip_wire_dateline", "LASHKAR GAH, Afghanistan, Feb 28 (Reuters) - The ferry", "The ferry"),
        ("strip_wire_dateline", "He told the agency (AP) so", "He told the agency (AP) so"),
        ("strip_by_author", "By . A Name . The ferry . By noon", "The ferry . By noon"),
        (
            "strip_by_author",
            "By . A Name . and B Other . PUBLISHED: . 08:21 EST, 6 December 2012 . | . UPDATED: . 16:19 EST, "
            "6 December 2012 . The ferry",
            "The ferry",
        ),
        ("strip_by_author", "PUBLISHED: . 08:21 EST, 6 December 2012 . The ferry", "The ferry"),
        ("strip_by_author", "By A Name Last updated at 5:01 PM on 1st February 2012 The ferry", "The ferry"),
        ("strip_by_author", "By the river stood a house . It burned", "By the river stood a house . It burned"),
        ("strip_new_marker", "NEW: One .\nNEW: Two .\nThree is NEW: here", "One .\nTwo .\nThree is NEW: here"),
        ("mend_quotes", 'the workers"?lives, "no,"?she said "? twice', 'the workers" lives, "no," she said -  twice'),
        ("mend_quotes", 'Did he say "yes"? He did', 'Did he say "yes"? He did'),
        ("mend_quotes", "he said \ufffdyes\ufffd", 'he said "yes"'),
        ("collapse_whitespace", " a \n\n b\tc ", "a b c"),
    ],
)
def test_step(step, before, after):
    chosen = cleaning.STEPS[step]
    apply = chosen.document or chosen.target
    assert apply(before) == after
    assert apply(after) == after


@pytest.mark.parametrize(
    ("step", "kept", "dropped"),
    [
        ("drop_garbled", 'They asked "why?" and left', 'the workers"?lives'),
        ("drop_garbled", "a plain target", "a \ufffd target"),
        ("drop_short_targets", "four words are enough", "too few words"),
        ("drop_longer_than_document", "short", "a target of more words than its document has got"),
    ],
)
def test_drop_steps(step, kept, dropped):
    steps = cleaning.steps_named([step])
    assert cleaning.kept_in_training("a document of six words only", kept, steps)
    assert not cleaning.kept_in_training("a document of six words only", dropped, steps)


@pytest.mark.parametrize(
    ("language", "document", "kept", "dropped"),
    [
        ("zh", "今天上海下了大雨。很多地铁停运。", "上海下大雨", "大雨"),
        ("ja", "昨日、東京で大雨が降り、電車が止まった。", "東京で大雨", "大雨"),
        ("th", "วันนี้ฝนตกหนักในกรุงเทพฯ", "ฝนตกหนัก", "ฝน"),
        ("de", "Heute regnet es in Berlin sehr stark.", "In Berlin regnet es", "In Berlin-Mitte regnet's"),
    ],
)
def test_words_are_counted_as_the_language_separates_them(language, document, kept, dropped):
    steps = cleaning.steps_named(["drop_short_targets", "drop_longer_than_document"])
    assert cleaning.kept_in_training(document, kept, steps, language)
    assert not cleaning.kept_in_training(document, dropped, steps, language)
    assert not cleaning.kept_in_training(kept, document, steps, language)


def test_steps_apply_in_the_order_given():
    steps = cleaning.steps_named(["strip_cnn_dateline", "strip_by_author"])
    assert cleaning.clean_document("(CNN) By . A Name . The ferry", steps) == "The ferry"
    assert cleaning.clean_document("(CNN) By . A Name . The ferry", steps[::-1]) == "By . A Name . The ferry"


def test_unknown_step_lists_the_known():
    with pytest.raises(UserError, match=r"strip_everything.*strip_cnn_dateline"):
        cleaning.steps_named(["strip_everything"])


def test_trailing_blanks_take_no_cubic_time():
    for before in ("PUBLISHED", "By . A Name . UPDATED:", "PUBLISHED: . 6 May 2012 .", "PUBLISHED: . May", "By"):
        text = before + " " * 200_000 + "x"
        for step in cleaning.STEPS.values():
            for apply in filter(None, (step.document, step.target)):
                assert apply(text)
