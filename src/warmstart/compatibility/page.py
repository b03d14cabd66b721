"""The matrix as a page and as JSON; every count on it is computed."""

from collections.abc import Iterable
from typing import Any

import transformers

from warmstart.compatibility.matrix import DECODERS, Cell

COMMAND = "python -m warmstart.compatibility --page docs/compatibility.md --json docs/compatibility.json"


def summary(cells: Iterable[Cell]) -> dict[str, Any]:
    """Counts and results of the cells, as plain values."""
    cells = list(cells)
    return {
        "transformers": transformers.__version__,
        "decoders": {by: sorted(_clean(cells, "decoder", by)) for by in ("warmstart", "transformers")},
        "encoders": {by: sorted(_clean(cells, "encoder", by)) for by in ("warmstart", "transformers")},
        "cells": [
            {"type": cell.kind, "side": cell.side, "with": cell.other, "joined": cell.joined, "result": result(cell)}
            for cell in cells
            if cell.by == "warmstart"
        ],
    }


def page(cells: Iterable[Cell]) -> str:
    """docs/compatibility.md."""
    cells = list(cells)
    found = summary(cells)
    listed = {side: len({cell.kind for cell in cells if cell.side == side}) for side in ("decoder", "encoder")}
    lines = [
        "# Compatibility",
        "",
        f"Written by `{COMMAND}` on tiny random models of every type in transformers {found['transformers']}.",
        "A type is clean where it passes every check: loss, gradients in every new part, bare language model at step",
        "zero, effect of the source, causality, padding of source (right; of encoders left too) and target, greedy and",
        "beam ids with the cache and without, a batch and its rows, saving and loading, the loss without logits.",
        "",
        "| | types listed | clean here | clean in transformers' EncoderDecoderModel |",
        "|---|---|---|---|",
    ]
    for side in ("decoder", "encoder"):
        counts = [len(found[f"{side}s"][by]) for by in ("warmstart", "transformers")]
        lines.append(f"| {side}s | {listed[side]} | {counts[0]} | {counts[1]} |")
    lines += [
        "",
        f"Decoders stand behind a BERT encoder; encoders before {' and '.join(DECODERS)}, clean where both are",
        "(transformers' class: before the first, it refuses the second). `grafted` is cross-attention added to a type",
        "that has none that is sound, `native` the type's own. Encoders whose result depends on padding by design",
        "(FNet mixes all places; Nystromformer's landmarks, YOSO's hashes, ConvBERT's, Funnel's and MobileBERT's",
        "windows reach over it) are named with the figure: give them sources of one length, or batches of one row.",
        "",
    ]
    for side in ("decoder", "encoder"):
        lines += [f"## {side.capitalize()}s", "", "| type | with | | result |", "|---|---|---|---|"]
        mine = [cell for cell in cells if cell.side == side and cell.by == "warmstart"]
        lines += [f"| {c.kind} | {c.other} | {c.joined} | {result(c).replace('|', '/')} |" for c in mine]
        lines.append("")
    return "\n".join(lines)


def result(cell: Cell) -> str:
    """``clean``, why the type is refused, or what failed."""
    if cell.refused:
        return f"refused: {cell.refused}"
    if len(cell.faults) > 3:
        name, first = next(iter(cell.faults.items()))
        return f"{name}: {first} (and {len(cell.faults) - 1} more checks)"
    return "; ".join(f"{name}: {fault}" for name, fault in cell.faults.items()) or "clean"


def _clean(cells: list[Cell], side: str, by: str) -> set[str]:
    mine = [cell for cell in cells if cell.side == side and cell.by == by]
    return {cell.kind for cell in mine} - {cell.kind for cell in mine if not cell.clean}
