"""Split a text that is longer than a model reads into parts of whole sentences, each with a summary of its own."""

from collections.abc import Callable


def parts_of(text: str, fits: Callable[[str], bool], language: str = "en") -> list[str]:
    """Split a text into as few consecutive parts as fit, at ends of sentences where possible.

    Args:
        text: The text.
        fits: Whether the model reads a text to its end. It must hold for a single character.
        language: ISO code of the language, for the ends of sentences.

    Returns:
        The parts, in order; all of the text is in them. The text itself if it fits.
    """
    from warmstart.evaluation.languages import sentences

    if fits(text):
        return [text]
    found: list[str] = []
    pending = ""
    for piece in (part for sentence in sentences(text, language) for part in _fitting(sentence, fits)):
        longer = f"{pending} {piece}".strip()
        if pending and not fits(longer):
            found.append(pending)
            longer = piece
        pending = longer
    return [*found, pending] if pending else found or [text]


def _fitting(sentence: str, fits: Callable[[str], bool]) -> list[str]:
    """Halve a sentence at a word, or a word at a character, until every part fits."""
    if len(sentence) < 2 or fits(sentence):
        return [sentence]
    words = sentence.split()
    parts, between = (words, " ") if len(words) > 1 else (list(sentence), "")
    half = len(parts) // 2
    return [*_fitting(between.join(parts[:half]), fits), *_fitting(between.join(parts[half:]), fits)]
