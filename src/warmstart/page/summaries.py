"""Summarize a text with one or two models, and yield what the page shows after each step."""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from warmstart.data.sources.bad_rows import BadText, text_of
from warmstart.errors import UserError
from warmstart.evaluation.baselines import LABELS, from_documents
from warmstart.evaluation.languages import MOST_LOST, likely_language, lost_letters, words
from warmstart.evaluation.metrics.fragments import fragment_lengths
from warmstart.evaluation.metrics.rouge import rouge_scores
from warmstart.page.menu import Menu, Model
from warmstart.page.reading import Reading, reading_of, words_read

LEADS = (1, 3)  # first sentences that are shown as baselines
_OF_DOCUMENT = ("copula", "source")  # the other baselines need the reference or the training texts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the user requested."""

    document: str
    reference: str
    paths: Sequence[str]
    """The models: one, or two to compare."""
    beams: int = 1
    shortest: int = 0
    """Minimum number of tokens of the summary."""
    longest: int = 64
    """Maximum number of tokens of the summary."""


@dataclass(frozen=True)
class Summary:
    """A summary, or the part that is written so far."""

    path: str
    text: str
    document: str = ""
    """The cleaned text; empty until the summary is complete."""
    reading: Reading | None = None
    read: list[list[tuple[int, float]]] | None = None
    """As ``words_read`` returns it."""
    coverage: float = 0.0
    """Share of the summary's words that the text has too."""
    longest_copy: int = 0
    """Number of words of the longest passage that is copied."""
    new_words: frozenset[str] = frozenset()
    """Words of the summary that the text lacks, in lower case."""
    rouge: str = ""


@dataclass(frozen=True)
class Baseline:
    """A summary without a model."""

    name: str
    text: str
    rouge: str = ""


@dataclass(frozen=True)
class View:
    """What the page shows."""

    summaries: Sequence[Summary] = ()
    baselines: Sequence[Baseline] = ()
    status: str = ""
    error: str = ""
    is_busy: bool = False


def summarize(menu: Menu, request: Request) -> Iterator[View]:
    """Yield the page while a text is summarized; the last view is not busy.

    Args:
        menu: The models.
        request: The text, the models and the search.
    """
    view = View()
    try:
        for view in _views(menu, request):
            yield view
    except BadText as error:
        yield replace(view, error=f"The form {error}.", status="", is_busy=False)
    except UserError as error:
        yield replace(view, error=str(error), status="", is_busy=False)
    except Exception:  # noqa: BLE001 - one failed request must not end the server
        _log.exception("A summary failed.")
        failed = "The summary failed. The terminal that runs this page shows the reason."
        yield replace(view, error=failed, status="", is_busy=False)


def _views(menu: Menu, request: Request) -> Iterator[View]:
    if not request.document.strip():
        raise UserError("There is no text. Paste one, open a file or choose an example.")
    document = text_of(request.document.replace("\r\n", "\n"), "text")
    reference = request.reference.replace("\r\n", "\n")
    reference = text_of(reference, "reference") if reference.strip() else ""
    if request.shortest > request.longest:
        raise UserError(
            f"The shortest summary ({request.shortest} tokens) is longer than the longest ({request.longest})."
        )
    search = {
        "num_beams": request.beams,
        "min_new_tokens": request.shortest,
        "max_new_tokens": request.longest,
    }
    summaries: list[Summary] = []
    model = None
    for path in request.paths:
        yield View([*summaries], status=f"Loading {path}.", is_busy=True)
        with menu.in_use:
            model = menu.load(path)
            how = "" if request.beams == 1 else f" With {request.beams} beams the words are certain only at the end."
            status = f"{path} is writing.{how}"
            yield View([*summaries], status=status, is_busy=True)
            text = ""
            with closing(_pieces(model, document, search)) as pieces:
                for piece in pieces:
                    text += piece
                    yield View([*summaries, Summary(path, text)], status=status, is_busy=True)
            summaries.append(_measured(path, model, text, document, reference))
        yield View([*summaries], status="Scoring.", is_busy=True)
    assert model is not None
    status = "Done."
    if reason := no_score(reference, model.language):
        status += f" {reason}"
    yield View(summaries, baselines_of(model, summaries[-1].document, reference), status)


def _pieces(model: Model, document: str, search: dict[str, Any]) -> Generator[str, None, None]:
    if search["num_beams"] == 1:
        yield from model.summarizer.stream(document, **search)
    else:
        yield model.summarizer(document, **search)


def _measured(path: str, model: Model, text: str, document: str, reference: str) -> Summary:
    cleaned, code = model.clean(document), model.language
    tokens, is_whole = model.summarizer.tokens_read(cleaned)
    if model.summarizer.reads_start_only:
        reading = reading_of(model.tokenizers, cleaned, model.summarizer.max_source_length)
    else:
        reading = Reading(tokens, not is_whole, None)
    own, source = words(text, code), words(cleaned, code)
    lengths = fragment_lengths(own, source)
    return Summary(
        path,
        text,
        cleaned,
        reading,
        words_read(model.summarizer.model, model.tokenizers, cleaned, text, reading),
        sum(lengths) / max(len(own), 1),
        max(lengths, default=0),
        frozenset(own) - frozenset(source),
        rouge_of(text, reference, code),
    )


def baselines_of(model: Model, document: str, reference: str) -> list[Baseline]:
    """Return the baselines that need the text only: the first sentences, and those of the run.

    Args:
        model: The model, for the language and the names of the baselines.
        document: The cleaned text.
        reference: The reference, or an empty text.
    """
    names = {f"lead{n}": f"First {n} sentences (lead-{n})" if n > 1 else "First sentence (lead-1)" for n in LEADS}
    names |= {name: LABELS[name].capitalize() for name in model.baselines if name in _OF_DOCUMENT}
    texts = {label: from_documents(name, [document], model.language)[0] for name, label in names.items()}
    return [Baseline(label, text, rouge_of(text, reference, model.language)) for label, text in texts.items()]


def rouge_of(text: str, reference: str, code: str) -> str:
    """Return the ROUGE of a text in words, or an empty text without a reference that ROUGE can read."""
    if not reference or no_score(reference, code):
        return ""
    scores = rouge_scores([text], [reference], code)
    kinds = takewhile(lambda kind: kind != "rougeLsum", scores)
    return ", ".join(f"{kind.replace('rouge', 'ROUGE-')} {scores[kind][0]:.1f}" for kind in kinds)


def no_score(reference: str, code: str) -> str:
    """Return why ROUGE cannot score against a reference; empty if it can, or if there is no reference."""
    share = lost_letters([reference], code)
    if share <= MOST_LOST:
        return ""
    likely = likely_language([reference])
    such = f" Start the page with data.language={likely}." if likely else ""
    return (
        f"No ROUGE: with data.language={code} it reads only the letters a to z, and would ignore {share:.0%} of the "
        f"reference's letters.{such}"
    )
