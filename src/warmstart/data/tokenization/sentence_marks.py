"""Special tokens between the sentences of sources and targets, as in BertSum (Liu & Lapata 2019).

    [CLS] first sentence [SEP] [CLS] second sentence [SEP]      a source with data.source_form=sentences
    first sentence [unused2] second sentence [SEP]              a target with data.target_form=sentences

The encoder's state at a start token stands for its sentence. The segment ids, 0 and 1 in turn, follow from the start
tokens (``warmstart.model.segments``), because texts never contain them.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from warmstart.config.data import DataSettings, SourceForm, TargetForm
from warmstart.config.model import SELECTOR, SubmodelSettings
from warmstart.errors import UserError
from warmstart.evaluation.languages import sentences, split_line
from warmstart.evaluation.oracle import greedy_oracle

SEPARATORS = ("[unused2]", "<extra_id_0>")
"""Tokens that separate the sentences of a target, by preference; else it is the mask token. No text contains them."""


@dataclass(frozen=True)
class SentenceMarks:
    """Which texts of a pair of tokenizers have marked sentences."""

    source: bool = False
    target: bool = False
    language: str = "en"
    """ISO code of the texts' language, which decides where sentences end."""
    labels: bool = False
    """Whether the sentences of sources are labelled, for a model that selects some."""

    @classmethod
    def of(cls, settings: DataSettings, decoder: SubmodelSettings) -> "SentenceMarks":
        """Return the marks of a config; all plain ones are equal. A decoder that selects sentences needs all marks."""
        selects = decoder.model_type == SELECTOR
        source = selects or settings.source_form is SourceForm.sentences
        target = selects or settings.target_form is TargetForm.sentences
        return cls(source, target, settings.language, selects) if source or target else cls()

    def ids(self, source: Any, target: Any) -> dict[str, int]:
        """Return the ids around sentences of a source, and between those of a summary.

        Args:
            source: The encoder's tokenizer.
            target: The decoder's tokenizer.

        Returns:
            ``sentence_start_id`` and ``sentence_end_id`` of sources, ``sentence_separator_id`` of targets, where
            sentences are marked.
        """
        found = {}
        if self.source:
            found = dict(zip(("sentence_start_id", "sentence_end_id"), sentence_ids(source), strict=True))
        return found | ({"sentence_separator_id": separator_id(target)} if self.target else {})

    def add_labels(
        self, rows: list[list[int]], examples: Sequence[Any], sources: list[list[int]], start: Any
    ) -> list[list[int]]:
        """Append the labels of an example's sentences to its summary: 1 for those of the oracle, else 0.

        The oracle chooses among the sentences that the encoder reads.

        Args:
            rows: Ids of each summary.
            examples: The texts.
            sources: Ids of each document.
            start: The id before each sentence.
        """
        if not self.labels:
            return rows
        labelled = []
        for row, example, source in zip(rows, examples, sources, strict=True):
            read = list(islice(document_sentences(example.document, self.language), source.count(start)))
            best = greedy_oracle(read, example.summary, language=self.language)
            labelled.append([*row, *(int(i in best) for i in range(len(read)))])
        return labelled

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``tokenizer_pair.json``; empty for plain texts."""
        return asdict(self) if self.source or self.target else {}

    def encode_sources(
        self, tokenizer: Any, texts: Sequence[str], max_length: int, options: dict[str, Any]
    ) -> list[list[int]]:
        """Tokenize documents, each sentence with a start token and a separator.

        Args:
            tokenizer: The encoder's tokenizer.
            texts: The documents.
            max_length: Maximum number of ids of each. A sentence that is cut off keeps its separator.
            options: Further arguments of the tokenizer.

        Returns:
            Ids of each document; empty for a document without sentences.
        """
        start, end = sentence_ids(tokenizer)
        rows = []
        for text in texts:
            row: list[int] = []
            found = document_sentences(text, self.language)
            while len(row) <= max_length and (some := list(islice(found, 16))):
                for ids in tokenizer(some, add_special_tokens=False, **options)["input_ids"]:
                    row += [start, *ids, end]
            rows.append(row if len(row) <= max_length else [*row[: max_length - 1], end])
        return rows

    def encode_targets(
        self, tokenizer: Any, texts: Sequence[str], max_length: int, options: dict[str, Any]
    ) -> list[list[int]]:
        """Tokenize summaries, with a separator between their sentences.

        Args:
            tokenizer: The decoder's tokenizer.
            texts: The summaries.
            max_length: Maximum number of ids of each, without the end token.
            options: Further arguments of the tokenizer.
        """
        separator, rows = separator_id(tokenizer), []
        for text in texts:
            row: list[int] = []
            found = sentences(text, self.language)
            for ids in tokenizer(found, add_special_tokens=False, **options)["input_ids"] if found else []:
                row += [separator, *ids] if row else ids
            rows.append(row[:max_length])
        return rows

    def parts(self, tokenizer: Any, row: list[int]) -> list[list[int]]:
        """Cut generated ids into sentences."""
        if not self.target:
            return [row]
        separator = separator_id(tokenizer)
        ends = [i for i, token in enumerate(row) if token == separator]
        return [row[i + 1 : j] for i, j in zip([-1, *ends], [*ends, len(row)], strict=True) if j > i + 1]


def document_sentences(text: str, language: str = "en") -> Iterator[str]:
    """Yield the sentences of a document, whose lines may be sentences or paragraphs."""
    for line in text.splitlines():
        if line := line.strip():
            yield from split_line(line, language)


def original_sentences(summary: str, document: str, language: str = "en") -> str:
    """Return the lines of a summary, decoded from selected sentences, as the document writes them.

    Args:
        summary: One sentence in each line. A line that is not a sentence of the document stays as it is.
        document: The document.
        language: ISO code of its language.
    """
    known: dict[str, str] = {}
    for sentence in document_sentences(document, language):
        known.setdefault(_letters(sentence), sentence)
    found = []
    for line in summary.splitlines():
        key = _letters(line)
        cut = (sentence for letters, sentence in known.items() if key and letters.startswith(key))
        found.append(known.get(key) or next(cut, line))
    return "\n".join(found)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text.lower())))


def sentence_ids(tokenizer: Any) -> tuple[int, int]:
    """Return the ids of the start token and of the separator of a sentence.

    Raises:
        UserError: The tokenizer lacks one of them.
    """
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if start is None or end is None or start == end:
        raise UserError(
            f"data.source_form=sentences needs an encoder whose tokenizer has a start and a separator token; "
            f"{type(tokenizer).__name__} does not have two such tokens. Set data.source_form=plain, or choose an "
            "encoder such as bert or roberta."
        )
    return int(start), int(end)


def separator_id(tokenizer: Any) -> int:
    """Return the id of the token between the sentences of a target.

    Raises:
        UserError: The tokenizer has no token for it.
    """
    for token in SEPARATORS:
        i = tokenizer.convert_tokens_to_ids(token)
        if i is not None and i != tokenizer.unk_token_id:
            return int(i)
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"data.target_form=sentences needs a decoder whose tokenizer has a token to separate sentences "
            f"({', '.join(SEPARATORS)} or a mask token); {type(tokenizer).__name__} has none. Set "
            "data.target_form=plain."
        )
    return int(tokenizer.mask_token_id)
