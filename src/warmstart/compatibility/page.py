"""The matrix as a page; every count on it is computed."""

from collections.abc import Iterable
from typing import Any

import transformers

from warmstart.compatibility.matrix import DECODERS, Cell

COMMAND = "python -m warmstart.compatibility --page docs/compatibility.md"


def summary(cells: Iterable[Cell]) -> dict[str, Any]:
    """Return the clean types of each side, by library, and the version of transformers."""
    cells = list(cells)
    return {
        "transformers": transformers.__version__,
        "decoders": {by: sorted(_clean(cells, "decoder", by)) for by in ("warmstart", "transformers")},
        "encoders": {by: sorted(_clean(cells, "encoder", by)) for by in ("warmstart", "transformers")},
    }


def page(cells: Iterable[Cell]) -> str:
    """docs/compatibility.md."""
    cells = list(cells)
    found = summary(cells)
    listed = {side: len({cell.kind for cell in cells if cell.side == side}) for side in ("decoder", "encoder")}
    lines = [
        "# Compatibility",
        "",
        "For anyone who chooses an encoder or a decoder. This page is written by a command that tries a tiny random",
        f"model of every type in transformers {found['transformers']}:",
        "",
        "```",
        COMMAND,
        "```",
        "",
        "A type is clean if it passes every check: loss; gradients in every new parameter; the bare language model at",
        "step zero; an effect of the source; causality; padding of source (right, and left for encoders) and target;",
        "greedy and beam ids with the cache and without; a batch against its examples; saving and loading; the loss",
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
        f"Decoders are tried with a BERT encoder. Encoders are tried with {' and '.join(DECODERS)}, and are clean if",
        "both pairs are (transformers' class: with the first, since it refuses the second). `native` is a type's own",
        "cross-attention, `grafted` is added to a type that has none, or none that is correct.",
        "",
        "Some encoders' results depend on padding by design: FNet, Nystromformer, YOSO, ConvBERT, Funnel and",
        "MobileBERT mix positions across it. They are listed with the difference; give them sources of one length, or",
        "batches of one example.",
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
