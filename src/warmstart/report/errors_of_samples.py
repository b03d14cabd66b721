"""Find what is wrong with a summary that a program can see: no text, a number that its source lacks, a repetition."""

from collections import Counter
from typing import Any

from warmstart.evaluation.languages import words
from warmstart.evaluation.metrics.novel_ngrams import ngrams
from warmstart.evaluation.metrics.number_precision import new_numbers
from warmstart.report.compare import Row

TITLES = {
    "empty": "no text",
    "number": "a number that the source lacks",
    "repeats": "repeats itself",
    "zero": "no word of the reference",
}
"""Kinds of errors and their names for people, in the order of the page."""
_SHOWN = 5  # numbers of one summary


def errors_of(summary: str, document: str, language: str = "en", rouge1: float | None = None) -> dict[str, str]:
    """Return the errors of a summary: by kind, as in ``TITLES``, what a page says about it.

    A repetition is a sequence of three words that occurs twice, or a word twice in a row.

    Args:
        summary: The summary.
        document: Its source.
        language: Code of their language.
        rouge1: ROUGE-1 of the summary, if it is known; 0 is an error.
    """
    if not summary.strip():
        return {"empty": TITLES["empty"]}
    found = {}
    if new := sorted(new_numbers(summary, document)):
        found["number"] = f"not in the source: {', '.join(new[:_SHOWN])}{' ...' if len(new) > _SHOWN else ''}"
    own = words(summary, language)
    repetitions = [one for one, times in Counter(ngrams(own, 3)).items() if times > 1]
    repetitions += [pair for pair in ngrams(own, 2) if pair[0] == pair[1]]
    for repeated in repetitions[:1]:
        found["repeats"] = f"repeats \N{LEFT DOUBLE QUOTATION MARK}{' '.join(repeated)}\N{RIGHT DOUBLE QUOTATION MARK}"
    if rouge1 == 0:
        found["zero"] = TITLES["zero"]
    return found


def error_rates(row: Row) -> dict[str, Any]:
    """Count the errors of a row's summaries, over all its seeds.

    Returns:
        ``examples`` (their number), and by kind of error the share of the summaries that have it, in percent.
    """
    language = row.runs[0].choices.get("data.language", "en")
    found = [
        errors_of(example["prediction"], example["document"], language, example.get("rouge1"))
        for run in row.runs
        for example in run.examples.values()
    ]
    return {"examples": len(found)} | {
        kind: 100 * sum(kind in one for one in found) / len(found) if found else None for kind in TITLES
    }
