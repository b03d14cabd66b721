"""Summarise your own texts.

python run.py task=summarize ckpt=runs/demo input=article.txt
python run.py task=summarize ckpt=runs/demo input=folder output=summaries
cat article.txt | python run.py task=summarize ckpt=runs/demo input=-

Texts are cleaned (``data.clean``) and truncated as in training. From a folder, each ``x.txt`` is summarised;
``x.summary.txt`` is the reference of ``x.txt`` (data/sources/files.py) and is skipped. The summaries of a folder go
into a folder. An input text is never overwritten.
"""

import sys
from pathlib import Path

from warmstart.atomic import write_text
from warmstart.config.schema import Config
from warmstart.data.cleaning import clean_document, steps_named
from warmstart.data.sources.bad_rows import BadText, text_of
from warmstart.data.sources.files import decoded, read_text
from warmstart.errors import UserError
from warmstart.printing import visible
from warmstart.runs.load import load_writer
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks.check import validate_numbers

BATCH = 8


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
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from warmstart.data.collate import Collator
    from warmstart.evaluation.summarize import summarize_batches
    from warmstart.model.submodel_config import maximum_positions

    validate_numbers(settings)
    steps = steps_named(settings.data.clean)
    files = _files(settings.input)
    targets = _targets(files, settings)
    texts = [clean_document(text, steps) for text in _read(files, settings)]
    model, tokenizers = load_writer(settings, saved)
    length = min(settings.data.max_source_length, maximum_positions(model.config.encoder) or 10**9)
    # One at a time: the tokenizers library needs forty times the memory of a text.
    ids = (tokenizers.encode_sources([text], length)[0] for text in texts)
    examples = [(i, np.array(source), np.array([])) for i, source in enumerate(ids)]
    collate = Collator(tokenizers.source_pad_id)
    starts = range(0, len(examples), BATCH)
    shown = track(starts, "summarizing", console=Console(stderr=True), transient=True)
    batches = (collate(examples[start : start + BATCH]) for start in shown)
    found = summarize_batches(model, batches, tokenizers, settings.generation, seed=settings.seed)
    _write({name: found[i] for i, name in enumerate(files)}, targets)


def _files(given: str | None) -> dict[str, Path]:
    """Return the input files by name; ``-`` is standard input."""
    if given is None:
        raise UserError("task=summarize needs input=: a text file, a folder of .txt files, or - for standard input.")
    path = Path(given)
    if given == "-" or path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise UserError(f"input={given} was requested, but there is no such file or folder. Check the path.")
    texts = (file for file in sorted(path.glob("*.txt")) if file.is_file())
    files = {file.name: file for file in texts if not file.name.endswith(".summary.txt")}
    if not files:
        raise UserError(
            f"input={given}: the folder holds no text to summarise. Add .txt files; an x.summary.txt is a "
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
            raise UserError(f"input={settings.input}: {name} {error}. Provide UTF-8 text.") from None
    return texts


def _write(summaries: dict[str, str], targets: dict[str, Path]) -> None:
    shown = visible if sys.stdout.isatty() else str  # a pipe gets the text unchanged, as a file does
    for name, summary in summaries.items():
        if name in targets:
            write_text(targets[name], summary + "\n")
        else:
            print(shown(summary if len(summaries) == 1 else f"{name}\t{summary}"))
