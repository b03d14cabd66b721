"""Write the parts of the page as HTML. Every text of a user, a model or a file is escaped here."""

from collections.abc import Sequence
from html import escape

from warmstart.page.menu import About
from warmstart.page.reading import word_spans
from warmstart.page.summaries import Baseline, Summary, View

_MOST_UNREAD = 2000  # characters that are shown of the part that was not read


def about(models: Sequence[tuple[str, About]]) -> str:
    """Describe the chosen models: what they are, what they were trained on, and how good they are."""
    return '<div class="ws-models">' + "".join(_card(path, one) for path, one in models) + "</div>"


def _card(path: str, one: About) -> str:
    details = "".join(f"<li>{escape(line)}</li>" for line in one.details)
    more = f"<details><summary>What the scores say</summary><ul>{details}</ul></details>" if details else ""
    return (
        f'<section class="ws-card"><h2>{escape(path)}</h2><p>{escape(one.made_of)} {escape(one.trained_on)}</p>'
        f"<p><strong>{escape(one.score)}</strong></p>{more}</section>"
    )


def status(view: View) -> str:
    """Write the line that says what happens, or the error."""
    if view.error:
        return f'<p class="ws-error" role="alert">{escape(view.error)}</p>'
    busy = '<span class="ws-busy" aria-hidden="true"></span>' if view.is_busy else ""
    return f'<p class="ws-status" role="status" aria-busy="{str(view.is_busy).lower()}">{busy}{escape(view.status)}</p>'


def summary(one: Summary) -> str:
    """Write a summary: its words, how much of it is copied, and the text with the mark where reading stopped."""
    parts = [f"<h2>{escape(one.path)}</h2>"]
    if one.reading is None:
        return _article([*parts, f'<p class="ws-summary ws-writing">{escape(one.text)}</p>'])
    words = _summary_words(one) if one.text.strip() else "<em>The summary is empty.</em>"
    parts.append(f'<p class="ws-summary">{words}</p>')
    if one.rouge:
        parts.append(f'<p class="ws-note">{escape(one.rouge)} against the reference.</p>')
    if one.text.strip():
        parts.append(f'<p class="ws-note">{escape(_overlap(one))}</p>')
    if one.read is None:
        parts.append('<p class="ws-note">Its tokenizers or its decoder do not tell which words were read.</p>')
    elif one.read:
        parts.append(
            '<p class="ws-line" aria-live="polite">Point at a word of the summary, or move between its words with the '
            "arrow keys, to see the words of the text that it read from.</p>"
        )
    cut = " That is its limit: the rest of the text was not read." if one.reading.is_cut else " That is all of it."
    parts.append(f"<h3>The text</h3><p class='ws-note'>The model read {one.reading.tokens} tokens.{cut}</p>")
    region = 'class="ws-text" tabindex="0" role="region" aria-label="The text as it was read"'
    parts.append(f"<div {region}>{_source_words(one)}</div>")
    if one.read:
        parts.append(
            '<p class="ws-note">Shares are cross-attention weights, averaged over all layers and heads, without '
            "special tokens. They show where the decoder looked, not why it chose the word.</p>"
        )
    return _article(parts)


def baselines(rows: Sequence[Baseline]) -> str:
    """Write the baselines next to which a summary has to stand."""
    if not rows:
        return ""
    items = "".join(
        f"<h3>{escape(row.name)}</h3><p class='ws-baseline'>{escape(row.text)}</p>"
        + (f'<p class="ws-note">{escape(row.rouge)} against the reference.</p>' if row.rouge else "")
        for row in rows
    )
    return _article(["<h2>Without a model</h2>", items])


def _article(parts: Sequence[str]) -> str:
    return f'<article class="ws-result">{"".join(parts)}</article>'


def _overlap(one: Summary) -> str:
    shares = (
        f"{one.coverage:.0%} of its words are in the text; the longest copied passage has {one.longest_copy} words."
    )
    return f"{shares} Underlined words are not in the text." if one.new_words else shares


def _summary_words(one: Summary) -> str:
    found, end = [], 0
    for number, (start, stop) in enumerate(word_spans(one.text)):
        word = one.text[start:stop]
        read = one.read[number] if one.read else []
        names = "ws-word ws-new" if word.lower() in one.new_words else "ws-word"
        weights = " ".join(f"{i}:{share:.3f}" for i, share in read)
        target = f' tabindex="{0 if number == 0 else -1}" data-read="{weights}"' if read else ""
        found.append(f'{escape(one.text[end:start])}<span class="{names}"{target}>{escape(word)}</span>')
        end = stop
    return "".join(found) + escape(one.text[end:])


def _source_words(one: Summary) -> str:
    assert one.reading is not None
    text, limit = one.document, one.reading.end
    read_to = len(text) if limit is None else limit
    found, end = [], 0
    for number, (start, stop) in enumerate(word_spans(text[:read_to])):
        found.append(f'{escape(text[end:start])}<span data-word="{number}">{escape(text[start:stop])}</span>')
        end = stop
    found.append(escape(text[end:read_to]))
    if limit is not None:
        rest, more = text[limit : limit + _MOST_UNREAD], max(0, len(text) - limit - _MOST_UNREAD)
        omitted = f" \u2026 and {more:,} more characters" if more else ""
        found.append('<span class="ws-stop">reading stopped here</span>')
        found.append(f'<span class="ws-unread">{escape(rest.lstrip())}{omitted}</span>')
    return "".join(found)
