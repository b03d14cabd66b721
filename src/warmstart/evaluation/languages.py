"""What a language decides: how its texts are split into sentences and words, and how words are stemmed.

    sentences("Er kam. Sie ging.", "de"), words("今天下雨", "zh"), language("hi").stemmer

English keeps the definition of Google's rouge-score (a-z, 0-9, Porter's stemmer). Every other language has words by the
Unicode word boundaries, or single characters where words are not separated, and a Snowball stemmer where there is one.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import pysbd
import snowballstemmer
from pysbd.languages import LANGUAGE_CODES
from rouge_score_rs.tokenizers import CharacterTokenizer, UnicodeTokenizer

from warmstart.errors import UserError

MOST_LOST = 0.1  # fraction of the letters of references: German loses a few percent, Hindi all of them
LONG = 5_000  # characters per call of pysbd, whose time grows with the square of the number of sentences
UNSPACED = frozenset({"zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo", "dz"})
"""Languages that do not separate words."""
_SNOWBALL = {
    **{"ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "cs": "czech", "da": "danish", "nl": "dutch"},
    **{"eo": "esperanto", "et": "estonian", "fi": "finnish", "fr": "french", "de": "german", "el": "greek"},
    **{"hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish", "it": "italian", "lt": "lithuanian"},
    **{"ne": "nepali", "no": "norwegian", "nb": "norwegian", "nn": "norwegian", "fa": "persian", "pl": "polish"},
    **{"pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho", "es": "spanish"},
    **{"sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish"},
}
_OF_SCRIPT = {  # the first word of a letter's Unicode name, and a language that is written so
    **{"CJK": "zh", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "DEVANAGARI": "hi", "ARABIC": "ar"},
    **{"CYRILLIC": "ru", "GREEK": "el", "HEBREW": "he", "THAI": "th", "LAO": "lo", "KHMER": "km", "MYANMAR": "my"},
    **{"BENGALI": "bn", "TAMIL": "ta", "TELUGU": "te", "GUJARATI": "gu", "KANNADA": "kn", "MALAYALAM": "ml"},
    **{"GURMUKHI": "pa", "SINHALA": "si", "GEORGIAN": "ka", "ARMENIAN": "hy", "ETHIOPIC": "am", "TIBETAN": "bo"},
}
_ENDS = ".!?\u2026\u0964\u0965\u06d4\u061f\u104b\u1362"  # also danda, Urdu, Arabic, Burmese and Ethiopic stops
_ENDS_WITHOUT_BLANK = "\u3002\uff01\uff1f"
_SENTENCE_END = re.compile(rf"(?<=[{_ENDS}])\s+|(?<=[{_ENDS_WITHOUT_BLANK}])")


@dataclass(frozen=True)
class Language:
    """How texts of a language are read."""

    code: str
    tokenizer: str
    """``rouge-score`` (a-z and 0-9 only), ``unicode-v1`` (words) or ``character-v1``."""
    stemmer: str | None
    splitter: str
    """``pysbd`` or ``punctuation``."""

    def signature(self, *, stemmed: bool = True) -> dict[str, str]:
        """Return tokenizer, stemmer, splitter and language as parts of a metric's signature."""
        stemmer = (self.stemmer or "none") if stemmed else "none"
        if stemmer not in ("none", "porter"):
            stemmer = f"snowball-{stemmer}-{version('snowballstemmer')}"
        splitter = f"pysbd-{version('pysbd')}" if self.splitter == "pysbd" else self.splitter
        return {"tok": self.tokenizer, "stem": stemmer, "split": splitter, "lang": self.code}


@cache
def language(code: str) -> Language:
    """Return how texts of a language are read.

    Args:
        code: Its ISO 639 code, such as ``de``.
    """
    splitter = "pysbd" if code in LANGUAGE_CODES else "punctuation"
    if code == "en":
        return Language(code, "rouge-score", "porter", splitter)
    return Language(code, "character-v1" if code in UNSPACED else "unicode-v1", _SNOWBALL.get(code), splitter)


def split_line(line: str, code: str = "en") -> list[str]:
    """Split a text without line breaks into sentences, at most ``LONG`` characters at a time.

    Args:
        line: The text.
        code: ISO code of its language.
    """
    if language(code).splitter == "punctuation":
        found = _SENTENCE_END.split(line)
        return [sentence.strip() for sentence in found if sentence.strip()]
    ends = (". ",) if code == "en" else (". ", *(f"{end} " for end in _ENDS[1:]), *_ENDS_WITHOUT_BLANK)
    portions = []
    while len(line) > LONG:
        cut = max(line.rfind(end, 0, LONG) for end in ends) + 1 or line.rfind(" ", 0, LONG) + 1 or LONG
        portions.append(line[:cut])
        line = line[cut:]
    segmented = (sentence.strip() for portion in (*portions, line) for sentence in _segmenter(code).segment(portion))
    return [sentence for sentence in segmented if sentence]


def sentences(text: str, code: str = "en") -> list[str]:
    """Split a text into sentences: its lines if there are several, otherwise by the rules of the language."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) != 1 else split_line(lines[0], code)


@lru_cache(maxsize=2**16)
def one_sentence_a_line(text: str, code: str = "en") -> str:
    """Return the sentences of a text, one per line."""
    # Cached, because baselines and controls score the same references, and splitting costs far more than scoring.
    return "\n".join(sentences(text, code))


def words(text: str, code: str = "en") -> list[str]:
    """Return the words of a text in lower case, without stemming; its characters where words are not separated."""
    tokenizer = _CHARACTERS if code in UNSPACED else _WORDS
    found: list[str] = tokenizer.tokenize(text)
    return found


class StemmedWords:
    """Words by the Unicode word boundaries, stemmed by Snowball; a tokenizer of rouge-score and rouge-score-rs.

    Args:
        algorithm: Snowball's name of the language.
    """

    def __init__(self, algorithm: str) -> None:
        stemmer = snowballstemmer.stemmer(algorithm)
        self._stem = lru_cache(maxsize=2**16)(stemmer.stemWord)

    def tokenize(self, text: str) -> list[str]:
        """Return the stems of a text in their order."""
        return [self._stem(word) for word in words(text, "")]


def lost_letters(texts: Iterable[str], code: str = "en") -> float:
    """Return the fraction of letters (Unicode category L) that the language's tokenizer ignores.

    In English they are all but a-z, after lowercasing. Other languages ignore none.
    """
    if language(code).tokenizer != "rouge-score":
        return 0.0
    counts = _letters(text.lower() for text in texts)
    lost = sum(n for letter, n in counts.items() if not letter.isascii())
    return lost / max(sum(counts.values()), 1)


def check_references(references: Sequence[str], split: str, way_on: str, code: str = "en") -> None:
    """Refuse references in a script that the language's tokenizer does not read.

    Args:
        references: All references of the split.
        split: Name of the split, for the message.
        way_on: What the user can do in addition, for the message.
        code: ISO code of the language.

    Raises:
        UserError: It would ignore more than ``MOST_LOST`` of their letters.
    """
    share = lost_letters(references, code)
    if share <= MOST_LOST:
        return
    example = max(references[:1000], key=lambda text: lost_letters([text], code))
    likely = likely_language(references[:1000])
    such = f"such as data.language={likely}" if likely else "such as de, fr or pl"
    raise UserError(
        f"With data.language={code}, metrics count only the letters a to z: they would ignore {share:.0%} of the "
        f"letters in the {split} references, such as {_shortened(example)!r}, and say nothing about these texts. Set "
        f"data.language to the ISO code of their language, {such}. {way_on}"
    )


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}\N{HORIZONTAL ELLIPSIS}"


def likely_language(texts: Iterable[str]) -> str | None:
    """Return the code of a language with the script of the letters other than a-z; None for Latin, which many share."""
    scripts: Counter[str | None] = Counter()
    for letter, n in _letters(texts).items():
        if letter.isascii():
            continue
        first = unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]
        scripts[_OF_SCRIPT.get(first)] += n
    if scripts["ja"] > 0.05 * scripts.total():  # Japanese has kana among Chinese characters
        return "ja"
    return scripts.most_common(1)[0][0] if scripts else None


def _letters(texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return Counter({letter: n for letter, n in counts.items() if unicodedata.category(letter).startswith("L")})


@cache
def _segmenter(code: str) -> Any:
    return pysbd.Segmenter(language=code, clean=False)


_WORDS: Any = UnicodeTokenizer()
_CHARACTERS: Any = CharacterTokenizer()
