"""Write summaries with a loaded model: clean, cut and tokenize texts as the run did, search, and restore case."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from warmstart.config.evaluation import GenerationSettings
from warmstart.config.schema import Config
from warmstart.data.cleaning import clean_document, steps_named

BATCH = 8


class Writer:
    """A model and its tokenizers, with the settings of texts and search. Threads may share it, unless they sample.

    Args:
        model: The joint model, on its device.
        tokenizers: Its ``TokenizerPair``.
        settings: The config, of which ``data``, ``generation`` and ``seed`` are used.

    Raises:
        UserError: ``data.clean`` names an unknown step.
    """

    def __init__(self, model: Any, tokenizers: Any, settings: Config) -> None:
        from warmstart.data.collate import Collator
        from warmstart.data.tokenization.source_layout import SourceLayout
        from warmstart.model.submodel_config import maximum_positions

        self.model, self.tokenizers, self.settings = model, tokenizers, settings
        self._layout = SourceLayout.of(settings.data, maximum_positions(model.config.encoder))
        self.max_source_length = self._layout.longest
        """Number of source tokens that the model reads, in all windows of a text; the rest of a text is cut."""
        self._collate = Collator(tokenizers.source_pad_id, layout=self._layout)
        self.restores_case: bool = tokenizers.writes_lower_case
        self._steps = steps_named(settings.data.clean)
        self._tokenizing = threading.Lock()  # a tokenizer keeps its truncation, and raises if another thread changes it

    def clean(self, text: str) -> str:
        """Apply the cleaning steps of ``data.clean`` to a document."""
        return clean_document(text, self._steps)

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        """Tokenize a cleaned document.

        Args:
            text: The document.
            max_length: Longest window in ids; by default that of the settings.

        Returns:
            Its ids; those of several windows one after the other.
        """
        layout = self._layout if max_length is None else replace(self._layout, window=max_length)
        # One at a time: the tokenizers library needs forty times the memory of a text.
        with self._tokenizing:
            (ids,) = layout.encode(self.tokenizers, [text])
        return ids

    @property
    def selects_sentences(self) -> bool:
        """Whether summaries are sentences of the document instead of being written token by token."""
        found: bool = self.tokenizers.marks.labels
        return found

    @property
    def reads_start_only(self) -> bool:
        """Whether what is read of a text that is too long are its first tokens."""
        return self._layout.is_plain

    def reads_whole(self, text: str) -> bool:
        """Return whether the model reads a cleaned document to its end."""
        if self._layout.is_plain:
            return len(self.encode(text, self.max_source_length + 1)) <= self.max_source_length
        with self._tokenizing:
            (ids,) = self._layout.without_limit().encode(self.tokenizers, [text])
        return len(ids) <= self.max_source_length

    def positions(self, ids: Sequence[int]) -> int:
        """Return the number of positions of a document in a batch of its own: its ids and the padding of windows."""
        return self._layout.padded_length(len(ids))

    def inputs(self, ids: Sequence[int]) -> tuple[Any, Any]:
        """Return the arguments of ``generate`` for the ids of one document: its ids and its mask, on the device."""
        import numpy as np

        input_ids, mask = self._collate.pad_sources([np.array(ids)])
        return input_ids.to(self.model.device), mask.to(self.model.device)

    def decode(self, ids: Any) -> list[str]:
        """Decode generated ids (B, T), without the start token."""
        with self._tokenizing:
            texts: list[str] = self.tokenizers.decode(ids)
        return texts

    def blocked_word_ngrams(self, size: int) -> Any:
        """Return the processors that block repeated n-grams of ``size`` words."""
        return self.tokenizers.blocked_word_ngrams(size)

    def restore_case(self, summary: str, text: str) -> str:
        """Write a summary's words as the cleaned document does, if the decoder's tokenizer loses case.

        Selected sentences become those of the document.
        """
        from warmstart.data.tokenization.sentence_marks import original_sentences
        from warmstart.evaluation.truecase import restore_case

        if self.tokenizers.marks.labels:
            return original_sentences(summary, text, self.tokenizers.marks.language)
        return restore_case(summary, text) if self.restores_case else summary

    def summaries(
        self,
        texts: Sequence[str],
        ids: Sequence[Sequence[int]],
        batches: Iterable[Sequence[int]],
        *,
        generation: GenerationSettings | None = None,
        first: int = 0,
        advance: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Summarize documents.

        Args:
            texts: The cleaned documents.
            ids: The ids of each, from ``encode``.
            batches: Indices of the documents in each batch.
            generation: The search; by default that of the settings.
            first: Number of documents that were summarized before; sampled tokens depend on a document's number.
            advance: Called with the number of documents after each batch.
        """
        import numpy as np

        from warmstart.evaluation.summarize import summarize_batches

        collate, none = self._collate, np.array([])
        found = summarize_batches(
            self.model,
            (collate([(first + i, np.array(ids[i]), none) for i in batch]) for batch in batches),
            self,
            generation or self.settings.generation,
            progress=advance,
            seed=self.settings.seed,
        )
        return [self.restore_case(found[first + i], text) for i, text in enumerate(texts)]

    def summaries_in_order(
        self, texts: Sequence[str], *, first: int = 0, advance: Callable[[int], None] | None = None
    ) -> list[str]:
        """Clean and summarize documents in batches of neighbours; the arguments are those of ``summaries``."""
        texts = [self.clean(text) for text in texts]
        batches = [range(start, min(start + BATCH, len(texts))) for start in range(0, len(texts), BATCH)]
        return self.summaries(texts, [self.encode(text) for text in texts], batches, first=first, advance=advance)
