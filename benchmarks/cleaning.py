"""Time each cleaning step on hostile texts of two sizes: a linear step takes twice as long for twice the text.

    python benchmarks/cleaning.py

Texts consist of a start and a repeated piece, in all combinations. For each step the text with the largest ratio is
shown. Times below a millisecond are left out, because they measure the clock.
"""

import time
from collections.abc import Callable
from itertools import product

from warmstart.data.cleaning import STEPS

SIZES = 100_000, 200_000
STARTS = (
    *(
        "",
        "A",
        "LONDON, England",
        "SEOUL (Reuters)",
        "(CNN)",
        "(CNN ",
        "By",
        "By . A Name . Follow @@",
        "NEW:",
        "/TASS/",
    ),
    *("PUBLISHED", "By . A Name . PUBLISHED: .", "PUBLISHED: . 6 May", "PUBLISHED: . 6 May 2012 . | .", '"?'),
)
PIECES = (
    *(
        " ",
        "\n",
        "A",
        "a ",
        "A ",
        "A, ",
        "A/",
        ".",
        ". ",
        ".\n",
        ": ",
        "| ",
        "| . ",
        "(",
        "(CNN) ",
        "By ",
        "NEW: ",
        "\nNEW:",
    ),
    *("PUBLISHED", "PUBLISHED ", "UPDATED: . ", "May", "May ", "PUBLISHED May 2012 ", '"', '"?', "\ufffd", "?\ufffd "),
)


def seconds(step: Callable[[str], object], text: str, tries: int) -> float:
    """Return the CPU time, the best of several runs."""
    times = []
    for _ in range(tries):
        began = time.process_time()
        step(text)
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    """Print a table with the worst text of each step."""
    print(f"| step | start | piece | ms, {SIZES[0]:,} | ms, {SIZES[1]:,} | ratio |\n|---|---|---|---|---|---|")
    for name, step in STEPS.items():
        keep = step.keep
        apply = step.document or step.target or (lambda text, keep=keep: keep and keep(text, text))
        worst = (0.0, 0.0, 0.0, "", "")
        for start, piece in product(STARTS, PIECES):
            texts = [start + piece * (size // len(piece)) + "x" for size in SIZES]
            some, twice = (seconds(apply, text, 1) for text in texts)
            if twice > 2.5 * some:  # repeat it: either growth, or a busy machine
                some, twice = (seconds(apply, text, 9) for text in texts)
            if twice > 1e-3:
                worst = max(worst, (twice / some, some, twice, start, piece))
        ratio, some, twice, start, piece = worst
        print(f"| {name} | {start!r} | {piece!r} | {some * 1e3:.1f} | {twice * 1e3:.1f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
