"""A long text is split into parts at ends of sentences, without losing a word."""

from warmstart.api.parts import parts_of


def fits_words(limit):
    return lambda text: len(text.split()) <= limit


def test_a_text_that_fits_is_returned_as_it_is():
    assert parts_of("One  two.\nThree.", fits_words(3)) == ["One  two.\nThree."]
    assert parts_of("", fits_words(3)) == [""]


def test_parts_end_with_sentences_and_are_as_long_as_possible():
    text = "The town met. It voted twice. The school closed. Nobody was hurt there."
    assert parts_of(text, fits_words(6)) == [
        "The town met. It voted twice.",
        "The school closed.",
        "Nobody was hurt there.",
    ]
    assert parts_of(text, fits_words(4)) == [
        "The town met.",
        "It voted twice.",
        "The school closed.",
        "Nobody was hurt there.",
    ]


def test_a_sentence_that_is_too_long_is_split_at_words():
    text = " ".join(f"word{i}" for i in range(23)) + ". End."
    found = parts_of(text, fits_words(5))
    assert " ".join(found) == text
    assert all(len(part.split()) <= 5 for part in found)


def test_a_word_that_does_not_fit_is_split_at_characters():
    text = "short " + "x" * 40 + " end"
    found = parts_of(text, lambda text: len(text) <= 10)
    assert found == ["short", *["x" * 10] * 4, "end"]


def test_a_text_without_blanks_is_split_at_the_ends_of_its_sentences():
    text = "会议在周一举行。学校将被关闭。没有人受伤。"
    found = parts_of(text, lambda text: len(text) <= 16, "zh")
    assert [part.replace(" ", "") for part in found] == ["会议在周一举行。学校将被关闭。", "没有人受伤。"]
