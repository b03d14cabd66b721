"""Summarize texts with a trained run or an export."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.api.composing import composed, words_of
from warmstart.api.parts import parts_of
from warmstart.api.process_state import library_settings_restored
from warmstart.api.streaming import stream
from warmstart.config.evaluation import GenerationSettings
from warmstart.config.schema import to_settings
from warmstart.errors import UserError
from warmstart.runs.load import check_search, load_writer
from warmstart.runs.recorded import with_recorded
from warmstart.runs.saved_model import SavedModel
from warmstart.runs.writer import Writer
from warmstart.seeding import seed_of
from warmstart.tasks.check import validate_numbers

if TYPE_CHECKING:
    from warmstart.api.trained_run import TrainedRun

LongTexts = Literal["cut", "parts", "windows"]


class Summarizer:
    """A loaded model that turns texts into summaries; threads may share it.

    Texts are cleaned and tokenized as in training. Use ``from_pretrained``.

    Args:
        writer: The model, its tokenizers and its settings.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._sampling = threading.Lock()  # the seed belongs to the whole process

    @classmethod
    def from_pretrained(
        cls,
        run: "str | Path | TrainedRun",
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        **search: Any,
    ) -> "Summarizer":
        """Load a trained model with the settings that its run recorded.

        On a CPU with AVX-512 the first call on a machine compiles kernels, as ``warmstart.cpu.build`` does.

        Args:
            run: A run or its folder (its best checkpoint), a ``.ckpt`` file, or an exported folder.
            device: Where the model computes; by default a GPU if there is one, unless the run was fitted with
                ``trainer.accelerator=cpu``.
            dtype: Precision of the weights, ``float32`` or ``bfloat16``; by default ``generation.dtype`` of the run.
            **search: Options of ``conf/generation`` that replace those of the run: ``num_beams=8``.

        Raises:
            UserError: There is no such model, it is damaged, or an option is invalid.
        """
        path = os.path.expanduser(str(getattr(run, "folder", run)))
        options: dict[str, Any] = {f"generation.{name}": value for name, value in search.items()}
        if dtype is not None:
            options["generation.dtype"] = dtype
        if device is not None and torch.device(device).type == "cpu":
            options["trainer.accelerator"] = "cpu"
        words, saved = words_of({"task": "summarize", "ckpt": path} | options), SavedModel(path)
        with library_settings_restored(), composed(words) as cfg:
            settings = to_settings(with_recorded(cfg, words, saved))
            validate_numbers(settings)
            model, tokenizers = load_writer(settings, saved)
        return cls(Writer(model if device is None else model.to(device), tokenizers, settings))

    @property
    def model(self) -> Any:
        """The ``EncoderDecoderModel``, in evaluation mode."""
        return self._writer.model

    @property
    def search(self) -> GenerationSettings:
        """The options of the search that a call does not replace."""
        return self._writer.settings.generation

    @property
    def max_source_length(self) -> int:
        """Number of source tokens that the model reads, in all windows of a text (``data.source_windows``)."""
        return self._writer.max_source_length

    @property
    def reads_start_only(self) -> bool:
        """Whether a text that is too long is its first tokens: neither windows nor other parts of it are read."""
        return self._writer.reads_start_only

    def tokens_read(self, text: str) -> tuple[int, bool]:
        """Return how many tokens of a cleaned text the model reads, and whether these are all of it.

        Args:
            text: The text, after ``data.clean``.

        Returns:
            The number of tokens, special tokens included, and whether the text is read to its end.
        """
        return len(self._writer.encode(text)), self._writer.reads_whole(text)

    @overload
    def __call__(
        self, texts: str, *, long_texts: LongTexts = "cut", batch_tokens: int | None = None, **search: Any
    ) -> str: ...
    @overload
    def __call__(
        self, texts: Iterable[str], *, long_texts: LongTexts = "cut", batch_tokens: int | None = None, **search: Any
    ) -> list[str]: ...
    def __call__(
        self,
        texts: str | Iterable[str],
        *,
        long_texts: LongTexts = "cut",
        batch_tokens: int | None = None,
        **search: Any,
    ) -> str | list[str]:
        """Summarize a text, or several in batches of similar length.

        Args:
            texts: A text, or several.
            long_texts: What happens to a text of more than ``max_source_length`` tokens. ``cut`` reads what
                ``data.truncation`` keeps, by default its start. ``parts`` splits it at ends of sentences, and joins the
                summaries of all parts with a blank. ``windows`` is the earlier name of ``parts``, which has nothing to
                do with ``data.source_windows``: of those the model reads all, and writes one summary.
            batch_tokens: Largest batch in source tokens, padding included; by default ``data.evaluation_max_tokens``.
            **search: Options of ``conf/generation`` for this call: ``num_beams=1``. With ``do_sample``, the summaries
                of a list depend on which texts share a batch.

        Returns:
            The summary of a text, or a list of summaries in the order of ``texts``.

        Raises:
            UserError: An option is invalid.
            TypeError: A text is not a ``str``, or ``texts`` is a mapping or a table.
        """
        generation = self._search_with(search)
        # Iterating over a mapping or a table would give its keys or the names of its columns.
        if isinstance(texts, Mapping) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
            raise TypeError(f"The texts are a {type(texts).__name__}. Pass a str, or a list or column of str.")
        whole = [self._cleaned(text) for text in ([texts] if isinstance(texts, str) else texts)]
        parts = [self._parts(text, long_texts) for text in whole]
        flat = [part for of_text in parts for part in of_text]
        ids = [self._writer.encode(part) for part in flat]
        budget = batch_tokens or self._writer.settings.data.evaluation_max_tokens
        batches = by_length(ids, budget, self._writer.positions)
        with self._seeded(generation):
            found = iter(self._writer.summaries(flat, ids, batches, generation=generation))
        summaries = [" ".join(next(found) for _ in of_text) for of_text in parts]
        return summaries[0] if isinstance(texts, str) else summaries

    def stream(self, text: str, *, long_texts: LongTexts = "cut", **search: Any) -> Iterator[str]:
        """Summarize a text, and yield each piece of the summary as soon as it is certain.

        Beam search decides on all words at its end, so the search is greedy, or samples with ``do_sample``. A model
        that selects sentences yields the whole summary as one piece.

        Args:
            text: The text.
            long_texts: As in a call.
            **search: Options of ``conf/generation``.

        Returns:
            The pieces; joined, they are the summary. Closing the iterator ends the search.

        Raises:
            UserError: An option is invalid, or ``num_beams`` is more than 1.
            TypeError: The text is not a ``str``.
        """
        generation = self._search_with({"num_beams": 1} | search)
        if generation.num_beams > 1:
            raise UserError(f"num_beams={generation.num_beams}: beam search cannot stream. Leave num_beams out.")
        if self._writer.selects_sentences:  # they are chosen together
            return iter([self(text, long_texts=long_texts, **search)])
        return self._stream(self._parts(self._cleaned(text), long_texts), generation)

    def _stream(self, parts: Sequence[str], generation: GenerationSettings) -> Iterator[str]:
        from warmstart.evaluation.summarize import generation_kwargs

        writer = self._writer
        kwargs = generation_kwargs(generation, writer.tokenizers)
        for number, part in enumerate(parts):
            inputs = writer.inputs(writer.encode(part))

            def generate(streamer: Any, inputs: Any = inputs, number: int = number) -> None:
                with self._seeded(generation), torch.inference_mode():
                    if generation.do_sample:
                        torch.manual_seed(seed_of(writer.settings.seed, number))
                    ids, mask = inputs
                    writer.model.generate(ids, attention_mask=mask, streamer=streamer, **kwargs)

            def decode(ids: list[int], part: str = part) -> str:
                return writer.restore_case(writer.decode([ids])[0], part)

            if number:
                yield " "
            yield from stream(generate, decode, writer.model.start_length)

    def _cleaned(self, text: str) -> str:
        if not isinstance(text, str):
            raise TypeError(f"A text is a {type(text).__name__}. Pass texts as str.")
        return self._writer.clean(text)

    def _parts(self, text: str, long_texts: str) -> list[str]:
        if long_texts == "cut":
            return [text]
        if long_texts not in ("parts", "windows"):
            raise UserError(f"long_texts={long_texts!r} was requested. Set 'cut' or 'parts'.")
        return parts_of(text, self._writer.reads_whole, self._writer.settings.data.language)

    def _search_with(self, search: dict[str, Any]) -> GenerationSettings:
        """Return the search with other options."""
        if not search:
            return self.search
        settings = self._writer.settings
        try:
            merged: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(settings.generation), search))
        except OmegaConfBaseException as error:
            known = ", ".join(vars(settings.generation))
            raise UserError(f"{str(error).splitlines()[0]}. The options of a search: {known}.") from error
        if merged.dtype != settings.generation.dtype:
            raise UserError("dtype belongs to the loaded model. Set it in Summarizer.from_pretrained.")
        changed = replace(settings, generation=merged)
        validate_numbers(changed)
        check_search(changed, self.model)
        found: GenerationSettings = merged
        return found

    @contextmanager
    def _seeded(self, generation: GenerationSettings) -> Iterator[None]:
        """Let one thread sample at a time, and restore the caller's random state."""
        if not generation.do_sample:
            yield
            return
        with self._sampling, torch.random.fork_rng():
            yield

    def __repr__(self) -> str:
        return f"Summarizer({self._writer.settings.ckpt!r}, device={str(self.model.device)!r})"


def by_length(
    ids: Sequence[Sequence[int]], max_tokens: int, positions: Callable[[Sequence[int]], int] = len
) -> list[list[int]]:
    """Group texts of similar length into batches.

    Args:
        ids: The ids of each text.
        max_tokens: Largest batch in tokens, padding included; a longer text is a batch of its own.
        positions: Number of positions of the ids of a text.

    Returns:
        Indices of the texts in each batch.
    """
    from warmstart.data.batching import pack

    lengths = [positions(one) for one in ids]
    order = sorted(range(len(ids)), key=lambda i: lengths[i])
    return pack(order, lengths, [0] * len(ids), max_tokens, None)
