"""Split a text that is longer than a model reads into windows of whole sentences."""

from collections.abc import Callable


def windows(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Split a text into as few consecutive windows as fit, at ends of sentences where possible.

    Args:
        text: The text.
        fits: Whether the model reads a text to its end. It must hold for a single word.

    Returns:
        The windows, in order; every word of the text is in one of them. The text itself if it fits.
    """
    from warmstart.evaluation.languages import sentences

    if fits(text):
        return [text]
    found: list[str] = []
    pending = ""
    for piece in (part for sentence in sentences(text) for part in _fitting(sentence, fits)):
        longer = f"{pending} {piece}".strip()
        if pending and not fits(longer):
            found.append(pending)
            longer = piece
        pending = longer
    return [*found, pending] if pending else found or [text]


def _fitting(sentence: str, fits: Callable[[str], bool]) -> list[str]:
    """Halve a sentence at a word until every part fits; a word that does not fit is returned as it is."""
    words = sentence.split()
    if len(words) < 2 or fits(sentence):
        return [sentence]
    half = len(words) // 2
    return [*_fitting(" ".join(words[:half]), fits), *_fitting(" ".join(words[half:]), fits)]
