"""Summarise your own texts.

python run.py task=summarize ckpt=runs/demo input=article.txt
python run.py task=summarize ckpt=runs/demo input=folder output=summaries
cat article.txt | python run.py task=summarize ckpt=runs/demo input=-
python run.py task=summarize ckpt=runs/demo input=reviews.csv data.document_column=text output=summaries.csv

Texts are cleaned (``data.clean``) and truncated as in training. From a folder, each ``x.txt`` is summarized;
``x.summary.txt`` is the reference of ``x.txt`` (data/sources/files.py) and is skipped. The summaries of a folder go
into a folder. An input text is never overwritten.

A csv, tsv or jsonl file is written in the same format with a column more. It is read row by row, never as a whole.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from warmstart.atomic import replacing, write_text
from warmstart.config.explicit import CommandLine
from warmstart.config.schema import Config
from warmstart.data.cleaning import steps_named
from warmstart.data.sources.added_column import FORMATS, AddedColumn
from warmstart.data.sources.bad_rows import BadText, text_of
from warmstart.data.sources.files import decoded, read_text
from warmstart.data.sources.tables import SUFFIXES
from warmstart.errors import UserError
from warmstart.printing import say, visible
from warmstart.runs.load import load_writer
from warmstart.runs.saved_model import SavedModel
from warmstart.runs.writer import Writer
from warmstart.tasks.check import validate_numbers

CHUNK = 512  # rows of a table that are in memory together


def run(settings: Config, run_dir: Path, saved: SavedModel | None = None) -> None:
    """Summarise ``input`` with the search of ``generation``, and write to ``output`` or to standard output.

    The input and the settings are checked before the model is loaded.

    Args:
        settings: the config of the task.
        run_dir: not used.
        saved: the model that ``ckpt`` names, if the caller has opened it.

    Raises:
        UserError: a setting, the input or the output is invalid, or the model cannot be loaded.
    """
    validate_numbers(settings)
    steps_named(settings.data.clean)
    files = _files(settings.input)
    targets = _targets(files, settings)
    ((name, path), *_) = files.items()
    if settings.input != "-" and path.suffix.lower() in SUFFIXES:
        _summarize_table(_table(path, settings, targets.get(name)), settings, targets.get(name), saved)
        return
    texts = _read(files, settings)
    with _progress(len(texts)) as advance:
        found = Writer(*load_writer(settings, saved), settings).summaries_in_order(texts, advance=advance)
    _write(dict(zip(files, found, strict=True)), targets)


@contextmanager
def _progress(count: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over ``count`` texts on standard error; yield the function that advances it."""
    from rich.console import Console
    from rich.progress import Progress

    # rich would move what is printed to standard output to its own console.
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False, disable=not shown) as bar:
        task = bar.add_task("summarizing", total=count)
        yield lambda n: bar.advance(task, n)


def _table(path: Path, settings: Config, target: Path | None) -> AddedColumn:
    """Open and check the input table.

    Raises:
        UserError: it cannot be used, or the output's suffix names another format.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        read = {".json": "read_json", ".parquet": "read_parquet"}[suffix]
        raise UserError(
            f'input={path}: task=summarize reads tables as {", ".join(FORMATS)}. Convert it: python -c "import pandas; '
            f"pandas.{read}('{path.name}').to_json('NEW.jsonl', orient='records', lines=True)\""
        )
    if target is not None and target.suffix.lower() in SUFFIXES and target.suffix.lower() != suffix:
        raise UserError(
            f"input={path} output={target}: the output has the format of the input. Name it "
            f"{target.with_suffix(suffix)}."
        )
    # Recorded ones are of the run's own file. What this command names is of the input.
    line = CommandLine.current()
    named = set() if line is None else {word.lstrip("+").partition("=")[0] for word in line.overrides}
    of_input = {name: getattr(settings.data, name) for name in ("delimiter", "encoding") if f"data.{name}" in named}
    return AddedColumn(path, "input", settings.data.document_column, settings.data.on_bad_row, **of_input)


def _summarize_table(table: AddedColumn, settings: Config, target: Path | None, saved: SavedModel | None) -> None:
    """Write the table with its summaries, a chunk of rows at a time."""
    if table.skipped:
        say(table.skipped, file=sys.stderr)  # standard output may be the table
    writer = Writer(*load_writer(settings, saved), settings)
    on_terminal = target is None and sys.stdout.isatty()
    shown = visible if on_terminal else str
    done, rows = 0, table.rows()
    output: Any = nullcontext(sys.stdout) if target is None else replacing(target)
    with output as file, _progress(table.count, shown=not on_terminal) as advance:
        file.write(shown(table.header()))
        while chunk := list(islice(rows, CHUNK)):
            documents = [document for _, document in chunk]
            summaries = writer.summaries_in_order(documents, first=done, advance=advance)
            for (row, _), summary in zip(chunk, summaries, strict=True):
                file.write(shown(table.line(row, summary)))
            file.flush()
            done += len(chunk)


def _files(given: str | None) -> dict[str, Path]:
    """Return the input files by name; ``-`` is standard input."""
    if given is None:
        raise UserError(
            "task=summarize needs input=: a text file, a folder of .txt files, a table "
            f"({', '.join(FORMATS)}), or - for standard input."
        )
    path = Path(given)
    if given == "-" or path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise UserError(f"input={given} was requested, but there is no such file or folder. Check the path.")
    texts = (file for file in sorted(path.glob("*.txt")) if file.is_file())
    files = {file.name: file for file in texts if not file.name.endswith(".summary.txt")}
    if not files:
        raise UserError(
            f"input={given}: the folder holds no text to summarize. Add .txt files; an x.summary.txt is a "
            "reference, not a document."
        )
    return files


def _targets(files: dict[str, Path], settings: Config) -> dict[str, Path]:
    """Return the output file of each input; empty if summaries go to standard output.

    Raises:
        UserError: ``output`` is a file but has to be a folder, or a summary would overwrite an input.
    """
    if settings.output is None:
        return {}
    output, many = Path(settings.output), Path(str(settings.input)).is_dir()
    options = f"input={settings.input} output={settings.output}"
    if many and output.exists() and not output.is_dir():
        raise UserError(f"{options}: input is a folder, but output is an existing file. Name a folder as output.")
    targets = {name: output / name if many or output.is_dir() else output for name in files}
    texts = {_file_id(path) for path in files.values() if path.exists()}
    for target in targets.values():
        if target.exists() and _file_id(target) in texts:
            raise UserError(f"{options}: the summary would replace the text {target}. Name another file or folder.")
    return targets


def _file_id(path: Path) -> tuple[int, int]:
    """Return the same value for all names of a file: links, or other upper and lower case on some disks."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _read(files: dict[str, Path], settings: Config) -> list[str]:
    texts = []
    for name, path in files.items():
        if settings.input == "-" and sys.stdin is None:
            raise UserError("input=- reads standard input, which is closed. Pass a text: ... input=- < article.txt")
        try:
            text = decoded(sys.stdin.buffer) if settings.input == "-" else read_text(path)
            texts.append(text_of(text, "text"))
        except BadText as error:
            named = "standard input" if settings.input == "-" else name
            raise UserError(f"input={settings.input}: {named} {error}. Provide text in UTF-8.") from None
    return texts


def _write(summaries: dict[str, str], targets: dict[str, Path]) -> None:
    shown = visible if sys.stdout.isatty() else str  # a pipe gets the text unchanged, as a file does
    for name, summary in summaries.items():
        if name in targets:
            write_text(targets[name], summary + "\n")
        else:
            print(shown(summary if len(summaries) == 1 else f"{name}\t{summary}"))
