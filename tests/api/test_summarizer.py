"""Summaries from Python: those of task=summarize, in any order, from several threads, streamed, and of long texts."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pandas
import pytest
import torch

import warmstart
from warmstart.api.summarizer import Summarizer, by_length
from warmstart.tasks import summarize

TEXT = "The council of town 5 met on day 5 and voted to close the library."
TEXTS = [TEXT, "Short.", f"{TEXT} {TEXT} {TEXT}", "Another text about a river and a bridge."]
LONG = " ".join(f"The council of town {i} met on day {i} and voted to close the river." for i in range(20))


def test_summaries_are_those_of_the_task(run, settings_of, tmp_path):
    files = tmp_path / "texts"
    files.mkdir()
    for i, text in enumerate(TEXTS):
        (files / f"{i}.txt").write_text(text)
    words = ["debug=tiny", f"ckpt={run.folder}", f"input={files}", f"output={tmp_path / 'out'}"]
    summarize.run(settings_of(*words, "generation.num_beams=2"), tmp_path)
    expected = [(tmp_path / "out" / f"{i}.txt").read_text().removesuffix("\n") for i in range(len(TEXTS))]
    for source in (run, run.folder, str(run.folder), run.folder / "export", run.folder / "checkpoints" / "best.ckpt"):
        summarizer = Summarizer.from_pretrained(source, num_beams=2)
        assert summarizer(TEXTS) == expected
    assert summarizer.search.num_beams == 2
    assert summarizer.max_source_length == 64


def test_one_text_gives_one_summary_and_the_order_is_kept(summarizer):
    found = summarizer(TEXTS)
    assert summarizer(reversed(TEXTS)) == found[::-1]
    assert [summarizer(text) for text in TEXTS] == found
    assert summarizer(TEXTS, batch_tokens=1) == found
    assert summarizer([]) == []


def test_a_run_in_the_home_folder_is_opened(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.folder.parent))
    assert Summarizer.from_pretrained(f"~/{run.folder.name}")(TEXT) == Summarizer.from_pretrained(run)(TEXT)
    assert warmstart.TrainedRun(f"~/{run.folder.name}").scores == run.scores


def test_batches_have_texts_of_similar_length():
    assert by_length([[1] * 9, [1], [1] * 8, [1] * 2], 18) == [[1, 3], [2, 0]]
    assert by_length([[1] * 9, [1] * 30], 18) == [[0], [1]]


def test_options_of_a_call_replace_those_of_the_run(summarizer):
    assert len(summarizer(TEXT, max_new_tokens=1).split()) <= 1
    assert summarizer.search.max_new_tokens == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beam": 3}, "num_beam.*The options of a search: num_beams"),
        ({"num_beams": 0}, r"generation\.num_beams=0"),
        ({"num_beams": "many"}, "many"),
        ({"max_new_tokens": 10**6}, "positions"),
        ({"dtype": "bfloat16"}, r"Set it in Summarizer\.from_pretrained"),
        ({"long_texts": "split"}, "'cut' or 'parts'"),
    ],
)
def test_invalid_options_are_refused(summarizer, options, message):
    with pytest.raises(warmstart.UserError, match=message):
        summarizer(TEXT, **options)


def test_what_is_not_a_text_or_a_model_is_refused(summarizer, run, tmp_path):
    with pytest.raises(TypeError, match="A text is a int"):
        summarizer([1])
    for whole in ({"document": TEXT}, pandas.DataFrame({"document": [TEXT]}), None):
        with pytest.raises(TypeError, match=f"The texts are a {type(whole).__name__}. Pass a str"):
            summarizer(whole)
    with pytest.raises(warmstart.UserError, match="no such file or folder"):
        Summarizer.from_pretrained(tmp_path / "missing")
    with pytest.raises(warmstart.UserError, match=r"generation\.num_beamz"):
        run.summarizer(num_beamz=1)


def test_threads_share_a_summarizer(summarizer):
    calls = [
        lambda: summarizer(TEXTS),
        lambda: summarizer(TEXTS[:2], num_beams=1),
        lambda: "".join(summarizer.stream(TEXT)),
        lambda: summarizer(LONG, long_texts="parts"),
        lambda: summarizer(TEXTS, do_sample=True, num_beams=1),
        lambda: summarizer(LONG, do_sample=True, num_beams=1),
    ]
    expected = [call() for call in calls]
    start = threading.Barrier(len(calls))

    def repeat(call):
        start.wait()
        return [call() for _ in range(3)]

    with ThreadPoolExecutor(len(calls)) as pool:
        found = list(pool.map(repeat, calls))
    assert found == [[one] * 3 for one in expected]


def test_threads_tokenize_with_different_lengths(summarizer):
    writer, lengths = summarizer._writer, (5, 20, 60, 400)
    expected = {length: writer.encode(LONG, length) for length in lengths}
    text = writer.decode([[80, 81, 82]])

    def repeat(length):
        return (
            all(writer.encode(LONG, length) == expected[length] for _ in range(300))
            and [writer.decode([[80, 81, 82]]) for _ in range(300)] == [text] * 300
        )

    with ThreadPoolExecutor(len(lengths)) as pool:
        assert all(pool.map(repeat, lengths))


def test_sampling_leaves_the_random_state_of_the_caller(summarizer):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    summarizer(TEXT, do_sample=True, num_beams=1)
    assert torch.equal(torch.rand(1), expected)


def test_a_stream_is_the_greedy_summary(summarizer):
    for text in TEXTS:
        pieces = list(summarizer.stream(text, max_new_tokens=20))
        assert "".join(pieces) == summarizer(text, num_beams=1, max_new_tokens=20)
        assert all(pieces)
    sampled = {"do_sample": True, "num_beams": 1}
    assert "".join(summarizer.stream(TEXT, **sampled)) == summarizer(TEXT, **sampled)
    with pytest.raises(warmstart.UserError, match="beam search cannot stream"):
        summarizer.stream(TEXT, num_beams=2)


def test_parts_of_a_long_text(summarizer):
    from warmstart.api.parts import parts_of

    encode, limit = summarizer._writer.encode, summarizer.max_source_length
    parts = parts_of(LONG, lambda part: len(encode(part, limit + 1)) <= limit)
    assert len(parts) > 2
    assert " ".join(parts) == LONG
    assert summarizer(LONG, long_texts="parts") == " ".join(summarizer(parts))
    assert summarizer(LONG, long_texts="windows") == summarizer(LONG, long_texts="parts")  # its earlier name
    assert summarizer(LONG) == summarizer(parts[0] + " " + parts[1])  # cut where the model stops to read
    assert summarizer(TEXTS, long_texts="parts")[0] == summarizer(TEXT)
    pieces = "".join(summarizer.stream(LONG, long_texts="parts"))
    assert pieces == summarizer(LONG, long_texts="parts", num_beams=1)


def test_a_summarizer_on_the_cpu_in_bfloat16(run):
    summarizer = run.summarizer(device="cpu", dtype="bfloat16")
    assert summarizer.model.dtype is torch.bfloat16
    assert summarizer.model.device.type == "cpu"
    assert isinstance(summarizer(TEXT), str)
    assert "cpu" in repr(summarizer)
