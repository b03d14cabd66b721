"""Render the matrix as a Markdown page and as JSON."""

from collections.abc import Iterable
from typing import Any

import transformers

from warmstart.compatibility.matrix import DECODERS, Cell

COMMAND = "python -m warmstart.compatibility --page docs/compatibility.md --json docs/compatibility.json"


def summary(cells: Iterable[Cell]) -> dict[str, Any]:
    """Return the clean types and the results of the cells, as plain values."""
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
    """Return the page in Markdown."""
    cells = list(cells)
    found = summary(cells)
    listed = {side: len({cell.kind for cell in cells if cell.side == side}) for side in ("decoder", "encoder")}
    lines = [
        "# Compatibility",
        "",
        f"Written by `{COMMAND}` on tiny random models of every type in transformers {found['transformers']}.",
        "A type is clean if it passes every check: loss, gradients of every new parameter, bare language model at",
        "step zero, effect of the source, causality, padding of source (right; for encoders also left) and target,",
        "greedy and beam ids with and without the cache, a batch against its rows, saving and loading, the loss",
        "without logits.",
        "",
        "| | types listed | clean here | clean in transformers' EncoderDecoderModel |",
        "|---|---|---|---|",
    ]
    for side in ("decoder", "encoder"):
        counts = [len(found[f"{side}s"][by]) for by in ("warmstart", "transformers")]
        lines.append(f"| {side}s | {listed[side]} | {counts[0]} | {counts[1]} |")
    lines += [
        "",
        f"Decoders are tested with a BERT encoder, encoders with {' and '.join(DECODERS)}, and clean if both pairs are",
        "(transformers' class: only with the first, as it refuses the second). `grafted` means that cross-attention",
        "was added to a type without usable cross-attention, `native` that the type has its own. The results of some",
        "encoders depend on padding by design (FNet mixes all positions; Nystromformer's landmarks, YOSO's hashes,",
        "and the windows of ConvBERT, Funnel and MobileBERT include padding). They are listed with the deviation: give",
        "them sources of equal length, or a batch size of 1.",
        "",
    ]
    for side in ("decoder", "encoder"):
        lines += [f"## {side.capitalize()}s", "", "| type | with | | result |", "|---|---|---|---|"]
        mine = [cell for cell in cells if cell.side == side and cell.by == "warmstart"]
        lines += [f"| {c.kind} | {c.other} | {c.joined} | {result(c).replace('|', '/')} |" for c in mine]
        lines.append("")
    return "\n".join(lines)


def result(cell: Cell) -> str:
    """Return ``clean``, why the type is refused, or which checks failed."""
    if cell.refused:
        return f"refused: {cell.refused}"
    if len(cell.failures) > 3:
        name, first = next(iter(cell.failures.items()))
        return f"{name}: {first} (and {len(cell.failures) - 1} more checks)"
    return "; ".join(f"{name}: {message}" for name, message in cell.failures.items()) or "clean"


def _clean(cells: list[Cell], side: str, by: str) -> set[str]:
    mine = [cell for cell in cells if cell.side == side and cell.by == by]
    return {cell.kind for cell in mine} - {cell.kind for cell in mine if not cell.clean}
