"""Fuzz the cleaning steps for more than linear time; run by hand, not by the test suite.

    pip install atheris
    python tests/fuzz/cleaning.py -max_total_time=300 CORPUS

Each input is a start and a repeated piece, at two sizes. A step whose time grows by more than ``GROWTH`` when the text
doubles is a finding.
"""

import sys
import time

import atheris

with atheris.instrument_imports(include=["warmstart.data.cleaning"]):
    from warmstart.data.cleaning import STEPS

SIZES = 10_000, 20_000
GROWTH = 3.2  # a quadratic step has 4
LONG_ENOUGH = 0.02  # seconds; shorter times measure the clock
WORDS = (
    *(
        "PUBLISHED",
        "UPDATED",
        "Last updated at",
        "By ",
        " . ",
        ":",
        "|",
        "May",
        " 2012",
        "(CNN)",
        "(Reuters)",
        "/TASS/",
    ),
    *("NEW: ", '"?', "\ufffd", " ", "\n", "A", "a", ", ", "--", "and ", "Follow @@"),
)


def one_input(data: bytes) -> None:
    """Clean one start and its repeated piece."""
    given = atheris.FuzzedDataProvider(data)
    start, piece = ("".join(_word(given) for _ in range(given.ConsumeIntInRange(0, 6))) for _ in range(2))
    if not piece:
        return
    for name, step in STEPS.items():
        apply = step.document or step.target
        if apply is not None and _grows(apply, start, piece):
            raise AssertionError(f"{name} takes more than linear time for {start!r} and repeated {piece!r}")


def _word(given: "atheris.FuzzedDataProvider") -> str:
    if given.ConsumeProbability() < 0.8:
        return WORDS[given.ConsumeIntInRange(0, len(WORDS) - 1)]
    return str(given.ConsumeUnicodeNoSurrogates(3))


def _grows(apply, start: str, piece: str) -> bool:
    for _ in range(3):  # a busy machine may be slow once
        times = []
        for size in SIZES:
            text = start + piece * (size // len(piece)) + "x"
            began = time.process_time()
            apply(text)
            times.append(time.process_time() - began)
        if times[1] < LONG_ENOUGH or times[1] < GROWTH * times[0]:
            return False
    return True


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
