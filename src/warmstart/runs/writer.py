"""Write summaries with a loaded model: clean, cut and tokenize texts as the run did, search, and restore case."""

import threading
from collections.abc import Callable, Iterable, Sequence
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
        from warmstart.model.submodel_config import maximum_positions

        self.model, self.tokenizers, self.settings = model, tokenizers, settings
        self.max_source_length = min(
            settings.data.max_source_length, maximum_positions(model.config.encoder) or settings.data.max_source_length
        )
        """Number of source tokens that the model reads; the rest of a text is cut."""
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
            max_length: Maximum number of ids; by default ``max_source_length``.
        """
        # One at a time: the tokenizers library needs forty times the memory of a text.
        with self._tokenizing:
            (ids,) = self.tokenizers.encode_sources([text], max_length or self.max_source_length)
        found: list[int] = ids
        return found

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

        from warmstart.data.collate import Collator
        from warmstart.evaluation.summarize import summarize_batches

        collate, none = Collator(self.tokenizers.source_pad_id), np.array([])
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
