"""Summarise your own texts.

python run.py task=summarize ckpt=runs/demo input=article.txt
python run.py task=summarize ckpt=runs/demo input=folder output=summaries
cat article.txt | python run.py task=summarize ckpt=runs/demo input=-

Texts are cleaned (``data.clean``) and cut as the run's own documents were. A folder's ``x.summary.txt`` are references
of its ``x.txt`` (data/sources/files.py) and are left out; its summaries go into a folder. No summary takes a
document's place.
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
    """Read ``input``, summarise with ``generation``'s search, write to ``output`` or standard output.

    Whatever can be refused is refused before the model is loaded.
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from warmstart.data.collate import Collator
    from warmstart.evaluation.summarize import summarize_batches
    from warmstart.evaluation.truecase import restore_case
    from warmstart.model.submodel_config import maximum_positions

    validate_numbers(settings)
    steps = steps_named(settings.data.clean)
    files = _files(settings.input)
    places = _places(files, settings)
    texts = [clean_document(text, steps) for text in _read(files, settings)]
    model, tokenizers = load_writer(settings, saved)
    length = min(settings.data.max_source_length, maximum_positions(model.config.encoder) or 10**9)
    # One at a time: the tokenizers' library takes forty times a text's memory.
    ids = (tokenizers.encode_sources([text], length)[0] for text in texts)
    rows = [(i, np.array(row), np.array([])) for i, row in enumerate(ids)]
    collate = Collator(tokenizers.source_pad_id)
    starts = range(0, len(rows), BATCH)
    shown = track(starts, "summarizing", console=Console(stderr=True), transient=True)
    batches = (collate(rows[start : start + BATCH]) for start in shown)
    found = summarize_batches(model, batches, tokenizers, settings.generation, seed=settings.seed)
    if tokenizers.writes_lower_case:
        found = {i: restore_case(summary, texts[i]) for i, summary in found.items()}
    _write({name: found[i] for i, name in enumerate(files)}, places)


def _files(given: str | None) -> dict[str, Path]:
    """The file of each text by its name; ``-`` is standard input."""
    if given is None:
        raise UserError("task=summarize needs input=: a text file, a folder of .txt files, or - for standard input.")
    path = Path(given)
    if given == "-" or path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise UserError(f"input={given} was asked for, but no such file or folder is there.")
    texts = (one for one in sorted(path.glob("*.txt")) if one.is_file())
    files = {one.name: one for one in texts if not one.name.endswith(".summary.txt")}
    if not files:
        raise UserError(f"input={given}: the folder holds no .txt file. An x.summary.txt is a reference, no document.")
    return files


def _places(files: dict[str, Path], settings: Config) -> dict[str, Path]:
    """Where each text's summary goes; empty where they are printed.

    Raises:
        UserError: ``output`` is a file where a folder is needed, or a summary would replace one of the texts.
    """
    if settings.output is None:
        return {}
    place, many = Path(settings.output), Path(str(settings.input)).is_dir()
    asked = f"input={settings.input} output={settings.output}"
    if many and place.exists() and not place.is_dir():
        raise UserError(f"{asked}: the summaries of a folder go into a folder, and output= is none. Name a folder.")
    places = {name: place / name if many or place.is_dir() else place for name in files}
    texts = {_on_disk(path) for path in files.values() if path.exists()}
    for target in places.values():
        if target.exists() and _on_disk(target) in texts:
            raise UserError(f"{asked}: the summary would replace the text {target}. Name another file or folder.")
    return places


def _on_disk(path: Path) -> tuple[int, int]:
    """Equal for two names of one file, whether by a link or by a case that the disk does not tell apart."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _read(files: dict[str, Path], settings: Config) -> list[str]:
    texts = []
    for name, path in files.items():
        if settings.input == "-" and sys.stdin is None:
            raise UserError("input=- reads standard input, which is closed. Give it a text: ... input=- < article.txt")
        try:
            text = decoded(sys.stdin.buffer) if settings.input == "-" else read_text(path)
            texts.append(text_of(text, "text"))
        except BadText as error:
            raise UserError(f"input={settings.input}: {name} {error}. Give UTF-8 text.") from None
    return texts


def _write(summaries: dict[str, str], places: dict[str, Path]) -> None:
    shown = visible if sys.stdout.isatty() else str  # a pipe is data, as a file is
    for name, summary in summaries.items():
        if name in places:
            write_text(places[name], summary + "\n")
        else:
            print(shown(summary if len(summaries) == 1 else f"{name}\t{summary}"))
