"""What the page shows while it summarizes, and what it says when it cannot."""

from dataclasses import replace
from itertools import pairwise

import pytest
from page_texts import DOCUMENT

from warmstart.page.summaries import Request, summarize


@pytest.fixture
def request_of(run):
    def make(**changes):
        return replace(Request(DOCUMENT, "", [str(run.folder)], 1, 4, 12), **changes)

    return make


def last(menu, request):
    *_, view = summarize(menu, request)
    assert not view.is_busy
    return view


def test_words_appear_one_after_the_other_and_are_those_of_the_summarizer(menu, request_of):
    views = list(summarize(menu, request_of()))
    expected = menu.load(menu.paths[0]).summarizer(DOCUMENT, num_beams=1, min_new_tokens=4, max_new_tokens=12)
    assert [view.is_busy for view in views] == [True] * (len(views) - 1) + [False]
    texts = [view.summaries[0].text for view in views if view.summaries]
    assert texts[-1] == expected
    assert len(set(texts)) > 2
    assert all(later.startswith(text) for text, later in pairwise(texts))
    done = views[-1].summaries[0]
    assert done.document == DOCUMENT
    assert 0 <= done.coverage <= 1
    assert done.read is not None
    assert views[-1].baselines[0].text == DOCUMENT.partition(". ")[0] + "."
    assert not any(row.rouge for row in (done, *views[-1].baselines))


def test_beam_search_shows_its_text_at_the_end(menu, request_of):
    views = list(summarize(menu, request_of(beams=2)))
    expected = menu.load(menu.paths[0]).summarizer(DOCUMENT, num_beams=2, min_new_tokens=4, max_new_tokens=12)
    assert {view.summaries[0].text for view in views if view.summaries} == {expected}
    assert any("certain only at the end" in view.status for view in views)


def test_two_models_stand_side_by_side(menu, request_of):
    view = last(menu, request_of(paths=menu.paths))
    assert [one.path for one in view.summaries] == menu.paths
    assert all(one.reading is not None for one in view.summaries)


def test_the_tokens_of_all_windows_are_counted(menu_of, windows, request_of):
    path = str(windows.folder)
    menu = menu_of("data.source_windows=3", "data.max_source_length=8", ckpt=path)
    one = last(menu, request_of(paths=[path])).summaries[0]
    assert 8 < one.reading.tokens <= 24
    assert one.reading.is_cut
    assert one.read is None
    assert not last(menu, request_of(paths=[path], document="The council met.")).summaries[0].reading.is_cut


def test_an_export_has_the_baselines_that_need_its_text_only(menu_of, run, request_of):
    path = str(run.folder / "export")
    menu = menu_of("data.baselines=[lead,oracle]", ckpt=path)  # as by default: an export records none
    view = last(menu, request_of(paths=[path]))
    assert view.error == ""
    assert [one.name for one in view.baselines] == ["First sentence (lead-1)", "First 3 sentences (lead-3)"]


def test_a_reference_gives_scores_in_its_language(menu_of, request_of):
    view = last(menu_of(), request_of(reference="The school was closed."))
    assert all(row.rouge.startswith("ROUGE-1 ") for row in (*view.summaries, *view.baselines))
    hindi = request_of(reference="दिल्ली में 3 बजे वर्षा")
    view = last(menu_of(), hindi)
    assert "with data.language=en it reads only the letters a to z, and would ignore 100%" in view.status
    assert not any(row.rouge for row in (*view.summaries, *view.baselines))
    assert all(row.rouge for row in last(menu_of("data.language=hi"), hindi).baselines)


def test_a_text_is_cleaned_as_the_documents_of_the_run_were(menu_of, request_of):
    dated = f"LONDON, England (CNN) -- {DOCUMENT}"
    cleaning = menu_of("data.clean=[strip_cnn_dateline]")
    assert last(cleaning, request_of(document=dated)).summaries == last(menu_of(), request_of()).summaries
    assert last(menu_of(), request_of(document=dated)).summaries[0].document == dated


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"document": " \n"}, "There is no text. Paste one"),
        ({"document": "a\0b"}, "NUL character"),
        ({"document": "a\udcff"}, "not UTF-8"),
        ({"reference": "a\0b"}, "NUL character in its reference"),
        ({"shortest": 13}, "The shortest summary (13 tokens) is longer than the longest (12)"),
        ({"longest": 10**6, "shortest": 0}, "max_new_tokens"),
        ({"paths": ["/etc"]}, "not on the menu"),
    ],
)
def test_what_cannot_be_summarized_is_explained(menu, request_of, changes, words):
    view = last(menu, request_of(**changes))
    assert words in view.error
    assert "Traceback" not in view.error


def test_a_failure_is_reported_in_words_and_the_next_text_is_taken(menu, request_of, caplog):
    model = menu.load(menu.paths[0])
    good, model.tokenizers = model.tokenizers, None
    view = last(menu, request_of())
    assert view.error == "The summary failed. The terminal that runs this page shows the reason."
    assert "NoneType" in caplog.text
    model.tokenizers = good
    assert last(menu, request_of()).error == ""


def test_a_summary_that_is_stopped_lets_the_next_one_start(menu, request_of):
    views = summarize(menu, request_of())
    while not next(views).summaries:
        pass
    assert menu.in_use.locked()
    views.close()
    assert not menu.in_use.locked()
    assert last(menu, request_of()).error == ""
