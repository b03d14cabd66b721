"""The share of names in summaries that their sources have, times 100.

A name is a run of capitalized words. A capitalized word that opens a sentence counts only if another follows it, and
articles and the like never open a name. So no model is needed, but languages without capitals, and German, whose nouns
all have them, cannot be served. A summary in lower case has no names.
"""

import re
from itertools import groupby

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, ratio
from warmstart.evaluation.languages import UNSPACED, sentences, words
from warmstart.evaluation.metrics.metric import Metric, Texts, signed

_WORD = r"[^\W\d_][\w'\u2019-]*"
_RUN = re.compile(rf"(?<!\w){_WORD}(?:[ \u00a0]{_WORD})*")
_ELISION = re.compile(r"(?<!\w)([^\W\d_]{1,3}['\u2019])(?=([^\W\d_]))")  # the l' of l'Italie
_OPENERS = frozenset(
    (
        "a",
        "an",
        "and",
        "as",
        "at",
        "but",
        "by",
        "for",
        "from",
        "he",
        "her",
        "his",
        "i",
        "if",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "she",
        "that",
        "the",
        "they",
        "this",
        "to",
    )
)
_NO_CAPITALS = UNSPACED | frozenset(
    (
        "ar",
        "fa",
        "ur",
        "he",
        "yi",
        "ps",
        "sd",
        "ug",
        "ckb",
        "hi",
        "mr",
        "ne",
        "sa",
        "bn",
        "as",
        "or",
        "ta",
        "te",
        "gu",
        "kn",
        "ml",
        "pa",
        "si",
        "ko",
        "ka",
        "am",
        "ti",
    )
)
_CAPITAL_NOUNS = frozenset({"de", "lb"})


def names_in(text: str, code: str) -> set[str]:
    """Return the names in a text.

    Args:
        text: The text.
        code: ISO code of its language.
    """
    found = set()
    for sentence in sentences(_without_elisions(text), code):
        for run in _RUN.finditer(sentence):
            opens = not any(map(str.isalnum, sentence[: run.start()]))
            for is_capitalized, group in groupby(run[0].split(), key=lambda word: word[0].isupper()):
                name, starts, opens = list(group), opens, False
                if not is_capitalized:
                    continue
                if name[0].lower() in _OPENERS:
                    name = name[1:]
                elif starts and len(name) == 1:
                    continue
                if name:
                    found.add(" ".join(name))
    return found


def _without_elisions(text: str) -> str:
    """Separate lower-case articles and the like from the capitalized words that they are attached to."""
    return _ELISION.sub(lambda found: " " if found[1].islower() and found[2].isupper() else found[0], text)


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    supported, every = [], []
    for prediction, document in zip(texts.predictions, texts.documents, strict=True):
        names = names_in(prediction, texts.language)
        source = f" {' '.join(words(_without_elisions(document), texts.language))} "
        supported.append(sum(f" {' '.join(words(name, texts.language))} " in source for name in names))
        every.append(len(names))
    return {"entity_precision": ratio(supported, every)}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("entity_precision", "2", names="capitalized-runs", tok="unicode-v1", lang=code)


def _reason_against(code: str) -> str | None:
    if code in _NO_CAPITALS:
        return f"entity_precision finds names by their capitals, which data.language={code} does not have."
    if code in _CAPITAL_NOUNS:
        return f"entity_precision finds names by their capitals, which all nouns of data.language={code} have."
    return None


METRIC = Metric(_score, _signature, _reason_against)
