"""Every text on the page is escaped; the marks are where they belong."""

from page_texts import ATTACK

from warmstart.page import rendering
from warmstart.page.menu import About
from warmstart.page.reading import Reading, word_spans
from warmstart.page.summaries import Baseline, Summary, View

CUT = Summary(
    "a-run",
    "The river fell",
    "The river rose. It rained.",
    Reading(4, True, [(0, 3), (4, 9), (10, 14)]),
    [[(0, 0.5)], [(1, 0.6), (2, 0.3)], []],
    2 / 3,
    2,
    frozenset({"fell"}),
    "ROUGE-1 66.7",
)


def test_no_text_becomes_markup():
    attacked = Summary(
        ATTACK, ATTACK, ATTACK, Reading(9, False, []), [[(0, 1.0)]] * len(word_spans(ATTACK)), rouge=ATTACK
    )
    written = [
        rendering.about([(ATTACK, About(ATTACK, ATTACK, ATTACK, [ATTACK]))]),
        rendering.status(View(error=ATTACK)),
        rendering.status(View(status=ATTACK, is_busy=True)),
        rendering.summary(attacked),
        rendering.summary(Summary(ATTACK, ATTACK)),
        rendering.baselines([Baseline(ATTACK, ATTACK, ATTACK)]),
    ]
    for html in written:
        assert "<script" not in html
        assert "<img" not in html


def test_a_summary_is_marked_and_the_text_says_where_reading_stopped():
    html = rendering.summary(CUT)
    assert '<span class="ws-word" tabindex="0" data-read="0:0.500">The</span>' in html
    assert '<span class="ws-word" tabindex="-1" data-read="1:0.600 2:0.300">river</span>' in html
    assert '<span class="ws-word ws-new">fell</span>' in html
    assert '<span data-word="1">river</span> <span data-word="2">rose</span><span class="ws-stop">' in html
    assert '<span class="ws-unread">. It rained.</span>' in html
    assert "The model read 4 tokens. That is its limit: the rest of the text was not read." in html
    assert "67% of its words are in the text; the longest copied passage has 2 words. Underlined" in html
    assert "averaged over all layers and heads" in html


def test_a_long_rest_is_not_sent_whole():
    long = Summary("a-run", "The", "The " + "x" * 10**6, Reading(1, True, [(0, 3)]), [[(0, 1.0)]])
    assert len(rendering.summary(long)) < 5000
    assert "more characters" in rendering.summary(long)


def test_an_empty_summary_is_called_empty():
    html = rendering.summary(Summary("a-run", "", "The river.", Reading(3, False, []), []))
    assert "The summary is empty." in html
    assert "of its words" not in html
    assert "do not tell" in rendering.summary(Summary("a-run", "The", "The", Reading(3, False, None), None))
