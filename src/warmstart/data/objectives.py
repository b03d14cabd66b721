"""Turn a document without a label into a pair of source and target (``data.objective``).

    source, target = unlabelled_pair(Objective.prefix, text, example_id)

Each objective is a function of the text and a seeded generator. None sees a label. The generator is seeded with the
objective and the example's id, so a pair is the same in every process, on every rank and in every epoch.

Targets aim at ``TARGET_WORDS`` words. No target and no source is empty: a text of one word is both its own source and
its own target, and an empty text becomes ``MARK``.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

from warmstart.config.data import Objective

OBJECTIVES_VERSION = 1
"""Part of the fingerprint of a split: increase it whenever the result of an objective changes."""
MARK = "..."
"""Stands for a masked span. Every tokenizer has it; few decoders have a mask token, and fewer have sentinels."""
TARGET_WORDS = 48
"""Longest target in words, about one to three sentences, as summaries have. English needs about 64 tokens for it, half
of the default ``data.max_target_length``."""
FIRST_WORDS = 200
"""``prefix`` and ``span_corruption`` take targets from these words only, because a longer source is cut off at the end,
and a target must follow from what is left."""
MASKED_FRACTION, SPAN_WORDS = 0.15, 3  # as in T5 (Raffel et al. 2020)
GAP_FRACTION = 0.3  # as in PEGASUS
DROPPED_FRACTION = 0.3

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # kana and Han, written without spaces: a word is a character
_WORD = re.compile(rf"\s*(?:[{_UNSPACED}]|[^\s{_UNSPACED}]+)")
_TERM = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_SENTENCE_END = re.compile(
    r"[.!?\u2026][\"'\u201d\u2019\u00bb)\]]*\s+|[\u3002\uff01\uff1f][\u201d\u300d\u300f]?\s*|\n\s*\n"
)
_ABBREVIATION = re.compile(r"(?:^|[\s.(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Lt|Sen|Gov|vs|ca|No)\.\s+$")
_ABBREVIATION_LENGTH = 12


def unlabelled_pair(objective: Objective, text: str, example_id: str) -> tuple[str, str]:
    """Return source and target of an example.

    Args:
        objective: Any objective but ``summary``, whose targets are labels.
        text: The document.
        example_id: The id of the example; it seeds the random choices.
    """
    text = text.strip() or MARK
    # Bytes seed with their SHA-512: unlike with hash(), the seed is the same in every process.
    seed = f"{objective.value} {example_id}".encode("utf-8", "replace")
    return _FUNCTIONS[objective](text, random.Random(seed))


def prefix(text: str, chance: random.Random) -> tuple[str, str]:
    """Split a text in two: the first part is the source, its continuation the target.

    The cut is between a quarter and three quarters of the first ``FIRST_WORDS`` words. Words after the target are left
    out.
    """
    words = words_of(text)
    if len(words) < 2:
        return text, text
    cut = max(1, int((0.25 + chance.random() / 2) * min(len(words), FIRST_WORDS)))
    return _joined(words[:cut]), _joined(words[cut : cut + TARGET_WORDS])


def span_corruption(text: str, chance: random.Random) -> tuple[str, str]:
    """Replace spans of a text by ``MARK``; the target is the spans in order, with ``MARK`` between them.

    "the old ... by the river ... in May" has the target "mill that stands ... was sold again". It is the span
    corruption of T5 (Raffel et al. 2020) and of the R-denoiser of UL2 (Tay et al. 2023), with 15 % of the words in
    spans of three. Their sentinels differ from span to span; here the order tells the spans apart. One span lies at
    random in each stretch of 20 words, and never touches the next one.
    """
    words = words_of(text)
    if len(words) < 2:
        return text, text
    read = min(len(words), FIRST_WORDS)
    length = min(SPAN_WORDS, read // 2)
    count = max(1, round(MASKED_FRACTION * read / SPAN_WORDS))
    source, spans, done = [], [], 0
    for i in range(count):
        first, last = read * i // count, read * (i + 1) // count
        start = first + int(chance.random() * (last - first - length))
        source += [_joined(words[done:start]), MARK]
        spans.append(_joined(words[start : start + length]))
        done = start + length
    source.append(_joined(words[done:]))
    return " ".join(filter(None, source)), f" {MARK} ".join(spans)


def reconstruction(text: str, chance: random.Random) -> tuple[str, str]:
    """Drop three words of ten from a text; the target is its opening sentences, whole.

    The noise is the token deletion of BART (Lewis et al. 2020). Shuffled sentences would leave a text of one sentence
    as it is, and leave every sentence to be copied word by word.
    """
    words = words_of(text)
    kept = [word for word in words if chance.random() >= DROPPED_FRACTION]
    sentences = sentences_of(text)
    return _joined(kept or words[:1]), _joined(_up_to_target_words(sentences))


def gap_sentences(text: str, chance: random.Random) -> tuple[str, str]:
    """Cut the sentences that are most like the rest of a text; they are the target, in the order of the text.

    It follows PEGASUS (Zhang et al. 2020), in its best variant Ind-Orig: each sentence is scored independently of the
    others by its ROUGE-1 F1 with the rest of the text, and repeated words count as often as they occur. About three
    sentences of ten are cut, at least one. No mask token is left in their place. A text of one sentence is split as by
    ``prefix``.
    """
    sentences = sentences_of(text)
    if len(sentences) < 2:
        return prefix(text, chance)
    counts = [Counter(_TERM.findall(sentence.lower())) for sentence in sentences]
    whole: Counter[str] = Counter()
    for count in counts:
        whole.update(count)
    scores = [_rouge1_with_rest(count, whole) for count in counts]
    best = sorted(range(len(sentences)), key=lambda i: (-scores[i], i))[: max(1, round(GAP_FRACTION * len(sentences)))]
    cut = set(best[: len(_up_to_target_words([sentences[i] for i in best]))])
    return (
        _joined([sentence for i, sentence in enumerate(sentences) if i not in cut]),
        _joined([sentences[i] for i in sorted(cut)]),
    )


_FUNCTIONS: dict[Objective, Callable[[str, random.Random], tuple[str, str]]] = {
    Objective.prefix: prefix,
    Objective.span_corruption: span_corruption,
    Objective.reconstruction: reconstruction,
    Objective.gap_sentences: gap_sentences,
}


def words_of(text: str) -> list[str]:
    """Return the words of a text, each with the white space before it; a character of kana or Han is a word."""
    return _WORD.findall(text.strip())


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text, each with the white space after it.

    A rule of punctuation and capitals, not the segmenter that ROUGE uses, which is too slow for a whole data set.
    """
    found, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        goes_on = end.end() < len(text) and text[end.end()].islower()
        if goes_on or _ABBREVIATION.search(text[max(start, end.end() - _ABBREVIATION_LENGTH) : end.end()]):
            continue
        found.append(text[start : end.end()])
        start = end.end()
    found.append(text[start:])
    return [sentence for sentence in found if sentence.strip()]


def _rouge1_with_rest(sentence: Counter[str], whole: Counter[str]) -> float:
    """Return the ROUGE-1 F1 of a sentence with the rest of a text, from their word counts."""
    common = sum(min(count, whole[term] - count) for term, count in sentence.items())
    return 2 * common / max(whole.total(), 1)


def _up_to_target_words(sentences: Sequence[str]) -> list[str]:
    """Return the first sentence and as many of the next as fit in ``TARGET_WORDS`` words."""
    chosen, length = list(sentences[:1]), len(words_of(sentences[0]))
    for sentence in sentences[1:]:
        length += len(words_of(sentence))
        if length > TARGET_WORDS:
            break
        chosen.append(sentence)
    return chosen


def _joined(pieces: Sequence[str]) -> str:
    return "".join(pieces).strip()
