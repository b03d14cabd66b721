"""Summaries of a user's own texts: which are read and how, where summaries go, and that no text is lost."""

import csv
import io
import json

import pytest

from warmstart.api.composing import composed
from warmstart.config.schema import to_settings
from warmstart.data.sources.bad_rows import MAX_ROW_BYTES
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError
from warmstart.tasks import fit, summarize

TEXT = "The council met on Monday and voted to close the school."


@pytest.fixture
def texts(tmp_path):
    """A folder of two documents, one with a reference beside it, as data/sources/files.py reads it."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "a.summary.txt"):
        (folder / name).write_text(f"{name}: {TEXT}")
    return folder


@pytest.fixture
def refused(settings_of, tmp_path, monkeypatch):
    """``refused(match, "input=...")``: the task ends with such a message, and no model was loaded."""

    def load(settings):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(summarize, "load_writer", load)

    def ask(match, *words):
        with pytest.raises(UserError, match=match):
            summarize.run(settings_of("debug=tiny", *words), tmp_path)

    return ask


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_no_summary_takes_the_place_of_a_text(refused, texts, tmp_path, monkeypatch):
    before = contents(texts)
    link, folder_link = tmp_path / "link.txt", tmp_path / "folder_link"
    link.symlink_to(texts / "a.txt")
    folder_link.symlink_to(texts)
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.txt").symlink_to(texts / "a.txt")
    monkeypatch.chdir(texts)
    for given, output in [
        (texts / "a.txt", texts),
        (texts / "a.txt", texts / "a.txt"),
        ("a.txt", texts),
        ("a.txt", "../texts/a.txt"),
        (texts / "a.txt", link),
        (link, texts / "a.txt"),
        (texts, texts),
        (texts, folder_link),
        (texts, other),
    ]:
        refused("would replace the text", f"input={given}", f"output={output}")
    assert contents(texts) == before


def test_a_file_is_no_place_for_a_folders_summaries(refused, texts, tmp_path):
    (tmp_path / "file").write_text("kept")
    refused("Name a folder", f"input={texts}", f"output={tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_of_references_alone_holds_no_text(refused, tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    (folder / "a.summary.txt").write_text(TEXT)
    refused("is a reference, not a", f"input={folder}")


def test_numbers_and_steps_that_cannot_work_are_refused_before_the_model_is_loaded(refused, texts):
    given = f"input={texts}"
    refused(r"generation\.max_new_tokens=0", given, "generation.max_new_tokens=0")
    refused(r"generation\.num_beams=0", given, "generation.num_beams=0")
    refused("is more than", given, "generation.min_new_tokens=9", "generation.max_new_tokens=5")
    refused("no_such_step", given, "data.clean=[no_such_step]")


def test_standard_input_that_is_closed_or_without_end_is_refused(refused, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    refused("standard input, which is closed", "input=-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a" * (MAX_ROW_BYTES + 10))))
    refused("standard input is longer than", "input=-")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    refused(r"input=-: standard input has an empty text\. Provide text in UTF-8\.", "input=-")


def test_a_text_that_is_too_long_is_refused(refused, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * (MAX_ROW_BYTES + 1))
    refused(r"a\.txt is longer than", f"input={tmp_path / 'a.txt'}")


def test_a_folder_gives_a_folder_of_its_documents_cleaned_as_the_runs_were(settings_of, texts, tmp_path, monkeypatch):
    run, encoded, encode = tmp_path / "run", [], TokenizerPair.encode_sources
    fit.run(settings_of("debug=tiny"), run)

    def watched(tokenizers, documents, *rest):
        encoded.append(list(documents))
        return encode(tokenizers, documents, *rest)

    monkeypatch.setattr(TokenizerPair, "encode_sources", watched)
    (texts / "b.txt").unlink()
    (texts / "a.txt").write_text(f"LONDON, England (CNN) -- {TEXT}")
    chosen = ["debug=tiny", f"ckpt={run}", "data.clean=[strip_cnn_dateline]"]
    summarize.run(settings_of(*chosen, f"input={texts}", f"output={tmp_path / 'out'}"), tmp_path)
    assert encoded == [[TEXT]]
    assert contents(tmp_path / "out").keys() == {"a.txt"}
    summarize.run(settings_of(*chosen, f"input={texts}", f"output={tmp_path / 'out'}"), tmp_path)  # once more is fine


def test_standard_output_is_the_summary_alone_and_log_lines_are_on_standard_error(run_py, settings_of, tmp_path):
    run, text, file = tmp_path / "run", tmp_path / "text.txt", tmp_path / "summary.txt"
    fit.run(settings_of("debug=tiny"), run)
    (run / "checkpoints" / "best.ckpt").unlink()
    text.write_text(TEXT)
    chosen = ["debug=tiny", f"ckpt={run}", f"input={text}"]
    summarize.run(settings_of(*chosen, f"output={file}"), tmp_path)
    done = run_py("task=summarize", *chosen, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, file.read_text())
    assert "there is no best.ckpt, so last.ckpt is read" in done.stderr


def test_a_table_gets_a_column_of_the_summaries_that_its_texts_get(settings_of, tmp_path, capsys, monkeypatch):
    run, others = tmp_path / "run", "The river rose and the bridge was closed for a week."
    fit.run(settings_of("debug=tiny"), run)
    chosen = ["debug=tiny", f"ckpt={run}", "generation.num_beams=2"]
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, text in enumerate([TEXT, others, TEXT]):
        (folder / f"{i}.txt").write_text(text)
    summarize.run(settings_of(*chosen, f"input={folder}", f"output={tmp_path / 'out'}"), tmp_path)
    expected = [(tmp_path / "out" / f"{i}.txt").read_text().removesuffix("\n") for i in range(3)]
    monkeypatch.setattr(summarize, "CHUNK", 2)
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], ["1", TEXT], ["2", others], ["3", TEXT]])
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (TEXT, others, TEXT)))
    column = "data.document_column=text"
    summarize.run(settings_of(*chosen, column, f"input={tmp_path / 'x.jsonl'}", f"output={tmp_path / 'y'}"), tmp_path)
    assert [json.loads(line)["summary"] for line in (tmp_path / "y").read_text().splitlines()] == expected
    capsys.readouterr()
    summarize.run(settings_of(*chosen, column, f"input={tmp_path / 'x.csv'}"), tmp_path)
    printed = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [row["summary"] for row in printed] == expected
    assert [(row["id"], row["text"]) for row in printed] == [("1", TEXT), ("2", others), ("3", TEXT)]


def test_skipped_rows_are_reported_beside_the_table(settings_of, tmp_path, capsys):
    run = tmp_path / "run"
    fit.run(settings_of("debug=tiny"), run)
    (tmp_path / "x.csv").write_text(f"document\n{TEXT}\n \n")
    capsys.readouterr()
    chosen = ["debug=tiny", f"ckpt={run}", "data.on_bad_row=skip"]
    summarize.run(settings_of(*chosen, f"input={tmp_path / 'x.csv'}"), tmp_path)
    printed = capsys.readouterr()
    assert len(list(csv.reader(io.StringIO(printed.out)))) == 2
    assert "1 of 2 rows skipped" in printed.err


def test_a_table_is_read_as_the_command_says_and_not_as_the_file_of_the_run(settings_of, tmp_path, capsys):
    run, table = tmp_path / "run", tmp_path / "x.csv"
    fit.run(settings_of("debug=tiny"), run)
    table.write_bytes("document|name\nDie Brücke, gesperrt.|Ü\n".encode("cp1252"))
    words = ["debug=tiny", "task=summarize", f"ckpt={run}", f"input={table}"]
    capsys.readouterr()
    with composed([*words, "data.encoding=cp1252", "data.delimiter='|'"]) as cfg:
        summarize.run(to_settings(cfg), tmp_path)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""), delimiter="|"))
    assert [(row["document"], row["name"]) for row in rows] == [("Die Brücke, gesperrt.", "Ü")]
    table.write_text("document\nDie Brücke.\n")
    with composed(words) as cfg:
        cfg.data.encoding, cfg.data.delimiter = "cp1252", "|"  # as recorded with the run
        summarize.run(to_settings(cfg), tmp_path)
    assert "Die Brücke." in capsys.readouterr().out


def test_tables_that_cannot_be_used_are_refused_before_the_model_is_loaded(refused, tmp_path):
    for name in ("x.csv", "x.json", "x.parquet"):
        (tmp_path / name).write_text("text,title\na,b\n")
    refused("which has: 'text', 'title'", f"input={tmp_path / 'x.csv'}")
    table = [f"input={tmp_path / 'x.csv'}", "data.document_column=text"]
    refused(r"Name it .*out\.csv", *table, f"output={tmp_path / 'out.jsonl'}")
    refused("would replace the text", *table, f"output={tmp_path / 'x.csv'}")
    refused("would replace the text", *table, f"output={tmp_path}")
    refused("pandas.read_json", f"input={tmp_path / 'x.json'}")
    refused("pandas.read_parquet", f"input={tmp_path / 'x.parquet'}")


def test_samples_are_those_of_the_seed(settings_of, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    fit.run(settings_of("debug=tiny"), run)
    capsys.readouterr()

    def sampled(seed):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
        chosen = ["debug=tiny", f"ckpt={run}", "input=-", "generation.do_sample=true", "generation.num_beams=1"]
        summarize.run(settings_of(*chosen, "generation.max_new_tokens=20", f"seed={seed}"), tmp_path)
        return capsys.readouterr().out

    first = sampled(5)
    assert sampled(5) == first
    assert sampled(6) != first
