"""Summarise your own texts.

python run.py task=summarize ckpt=runs/demo input=article.txt
python run.py task=summarize ckpt=runs/demo input=folder output=summaries
cat article.txt | python run.py task=summarize ckpt=runs/demo input=-
"""

import sys
from pathlib import Path

from warmstart.app.loading import load_writer
from warmstart.app.schema import Config
from warmstart.atomic import write_text
from warmstart.data.bad_rows import BadText, text_of
from warmstart.errors import UserError

BATCH = 8


def run(settings: Config, run_dir: Path) -> None:
    """Read ``input``, summarise with ``generation``'s search, write to ``output`` or standard output."""
    import numpy as np
    import torch
    from rich.console import Console
    from rich.progress import track

    from warmstart.data.collate import Collator
    from warmstart.evaluation.generation import generation_kwargs
    from warmstart.model.halves import maximum_positions

    texts = _read(settings.input)
    model, tokenizers = load_writer(settings)
    length = min(settings.data.max_source_length, maximum_positions(model.config.encoder) or 10**9)
    ids = tokenizers.encode_sources(list(texts.values()), length)
    names = list(texts)
    summaries: dict[str, str] = {}
    collate = Collator(tokenizers.source_pad_id)
    starts = range(0, len(names), BATCH)
    for start in track(starts, "summarizing", console=Console(stderr=True), transient=True):
        rows = [(i, np.array(ids[i]), np.array([])) for i in range(start, min(start + BATCH, len(ids)))]
        batch = collate(rows)
        with torch.inference_mode():
            out = model.generate(
                batch["input_ids"].to(model.device),
                attention_mask=batch["attention_mask"].to(model.device),
                **generation_kwargs(settings.generation),
            )
        summaries.update(zip(names[start : start + BATCH], tokenizers.decode(out[:, 1:]), strict=True))
    _write(summaries, settings.output)


def _read(given: str | None) -> dict[str, str]:
    if given is None:
        raise UserError("task=summarize needs input=: a text file, a folder of .txt files, or - for standard input.")
    if given == "-":
        files: dict[str, bytes] = {"-": sys.stdin.buffer.read()}
    elif Path(given).is_dir():
        files = {path.name: path.read_bytes() for path in sorted(Path(given).glob("*.txt")) if path.is_file()}
    elif Path(given).is_file():
        files = {Path(given).name: Path(given).read_bytes()}
    else:
        raise UserError(f"input={given} was asked for, but no such file or folder is there.")
    if not files:
        raise UserError(f"input={given}: the folder holds no .txt file.")
    texts = {}
    for name, content in files.items():
        try:
            texts[name] = text_of(content.decode("utf-8-sig", "surrogateescape"), "text")
        except BadText as error:
            raise UserError(f"input={given}: {name} {error}. Give UTF-8 text.") from None
    return texts


def _write(summaries: dict[str, str], output: str | None) -> None:
    if output is None:
        for name, summary in summaries.items():
            print(summary if len(summaries) == 1 else f"{name}\t{summary}")
    elif len(summaries) == 1 and not Path(output).is_dir():
        write_text(Path(output), next(iter(summaries.values())) + "\n")
    else:
        for name, summary in summaries.items():
            write_text(Path(output) / name, summary + "\n")
