"""The LightningDataModule: from texts to the batches of each rank.

    prepare_data  one process per node tokenizes what the cache lacks
    setup         every process memory-maps it
    loaders       batches planned from seed and epoch; each rank takes its slice

Build the trainer with ``use_distributed_sampler=False``: the batches are already sliced by rank here.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from warmstart.config.data import DataSettings
from warmstart.data.batching import TokenBudgetBatchSampler, evaluation_batches
from warmstart.data.collate import Collator
from warmstart.data.sources.base import Example, Source
from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.cache import ExchangedDocuments, TokenizedSplit, tokenized_split
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.source_layout import SourceLayout
from warmstart.errors import UserError

_STAGES = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}


class ResumableLoader(DataLoader[Any]):
    """A training loader that Lightning recognises as able to resume in the middle of an epoch.

    Args:
        args: Positional arguments of ``DataLoader``.
        state: Returns the state of the loader.
        kwargs: Keyword arguments of ``DataLoader``.
    """

    def __init__(self, *args: Any, state: Callable[[], dict[str, Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that was trained on."""
        return self._state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the position of a state."""
        assert isinstance(self.batch_sampler, TokenBudgetBatchSampler)
        self.batch_sampler.load_state_dict(state)


class SummarizationDataModule(L.LightningDataModule):
    """Texts, token cache and loaders of one data set with one pair of tokenizers.

    Args:
        settings: The ``data`` group of the config.
        tokenizers: The pair that tokenizes documents and summaries.
        seed: Seed of the order of batches.
        source: The texts, if they are loaded already; else they are loaded at first use.

    Raises:
        UserError: The batch settings allow no batch.
    """

    def __init__(
        self, settings: DataSettings, tokenizers: TokenizerPair, *, seed: int, source: Source | None = None
    ) -> None:
        super().__init__()
        batch = settings.batch
        if batch.max_tokens is None and batch.size is None:
            raise UserError(
                "data.batch.max_tokens and data.batch.size are both null. Set the token budget (such as 16384) or the "
                "number of examples in a batch."
            )
        for option, value in {
            "data.batch.max_tokens": batch.max_tokens,
            "data.batch.size": batch.size,
            "data.batch.bucket": batch.bucket,
            "data.evaluation_max_tokens": settings.evaluation_max_tokens,
        }.items():
            if value is not None and value < 1:
                raise UserError(f"{option}={value} allows no example in a batch. Set 1 or more.")
        self.settings = settings
        self.tokenizers = tokenizers
        self.seed = seed
        self._source = source
        self._tokenized: dict[str, TokenizedSplit] = {}
        self._train_sampler: TokenBudgetBatchSampler | None = None
        self._resume_from: dict[str, Any] = {}

    @property
    def source(self) -> Source:
        """The texts, loaded at first use."""
        if self._source is None:
            self._source = load_source(self.settings)
        return self._source

    @property
    def layout(self) -> SourceLayout:
        """Which tokens of a document are read, and in how many windows."""
        return SourceLayout.of(self.settings)

    def examples(self, split: str) -> Sequence[Example]:
        """Return the texts of a split; a batch's ``index`` refers to them."""
        return self.source.split(split)

    def prepare_data(self) -> None:
        """Tokenize the splits that the cache lacks; Lightning calls this in one process per node."""
        for split in self.source.names:
            self.tokenized(split)

    def setup(self, stage: str | None = None) -> None:
        """Memory-map the splits of a stage.

        Args:
            stage: ``fit``, ``validate`` or ``test``; any other value maps all splits.
        """
        for split in _STAGES.get(stage or "", self.source.names):
            self.tokenized(split)

    def tokenized(self, split: str) -> TokenizedSplit:
        """Return the ids of a split, from the cache or newly tokenized."""
        if split not in self._tokenized:
            self._tokenized[split] = tokenized_split(
                self.examples(split),
                self.tokenizers,
                name=split,
                texts_fingerprint=self.source.split_fingerprint(split),
                layout=self.layout,
                max_target_length=self.settings.max_target_length,
                cache_dir=self.settings.cache_dir,
                processes=self.settings.processes,
            )
        return self._tokenized[split]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return this rank's training batches, from the position of a loaded checkpoint on."""
        rank, world_size = self._rank_and_world_size()
        sampler = self.train_sampler(rank, world_size)
        if self._resume_from:
            sampler.load_state_dict(self._resume_from)
            if self.trainer is not None:
                self._set_trainer_progress(sampler)
        elif self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
        self._train_sampler = sampler
        return ResumableLoader(
            self.tokenized("train"),
            batch_sampler=sampler,
            state=self.state_dict,
            **self._loader_options(bucket_targets=True),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this rank's validation batches; each example is on one rank, once."""
        return self._evaluation_loader("validation", *self._rank_and_world_size())

    def test_dataloader(self) -> DataLoader[Any]:
        """Return this rank's test batches; each example is on one rank, once."""
        return self._evaluation_loader("test", *self._rank_and_world_size())

    def eval_dataloader(
        self,
        split: str,
        documents: np.ndarray | None = None,
        done: Collection[int] = (),
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> DataLoader[Any]:
        """Return this rank's batches of a whole split for generation; each example is on one rank, once.

        The batches are the same for any number of ranks, so ranks may have different numbers of batches.

        Args:
            split: The split.
            documents: A permutation: example ``i`` gets the document of example ``documents[i]``.
            done: Indices of examples that need no batch. Only batches whose examples are all done are dropped; the
                others do not change.
            rank: This rank.
            world_size: Number of ranks.
        """
        rows: Any = self.tokenized(split)
        if documents is not None:
            rows = ExchangedDocuments(rows, documents)
        batches = self._evaluation_batches(rows, 0, 1)
        batches = [batch for batch in batches if not all(i in done for i in batch)]
        return DataLoader(rows, batch_sampler=batches[rank::world_size], **self._loader_options())

    def batches_in_epoch(self, world_size: int = 1) -> int:
        """Return the number of training batches per rank in every epoch."""
        return len(self.train_sampler(0, world_size))

    def place_of(self, checkpoint: dict[str, Any], world_size: int = 1) -> tuple[int, int]:
        """Return the epoch and the batch of each rank at which a fit resumes from a checkpoint."""
        return self.train_sampler(0, world_size).position_of(checkpoint[type(self).__qualname__])

    def row_counts(self) -> dict[str, dict[str, int]]:
        """Count the rows of each split that were kept, skipped and truncated.

        Returns:
            For each split: rows ``read``, ``kept`` and ``skipped`` (by cleaning or a limit), whether the kept rows are
            a random sample (``sampled``), and texts that reach their maximum length (``truncated_documents``,
            ``truncated_summaries``), which include the few that fit exactly; with several windows or another
            ``data.truncation`` than ``head``, only documents that were cut. ``reader`` holds the counts of rows that
            the reader itself skipped.
        """
        report, settings = dict(self.source.report), self.settings
        counts = {}
        for split in self.source.names:
            read, kept = report.pop(f"{split}_read"), report.pop(f"{split}_examples")
            rows = self.tokenized(split)
            cut = None if self.layout.is_plain else rows.cut_sources
            counts[split] = {
                "read": read,
                "kept": kept,
                "skipped": read - kept,
                "sampled": bool(report.pop(f"{split}_sampled")),
                "truncated_documents": (
                    int((rows.source_lengths >= settings.max_source_length).sum()) if cut is None else cut
                ),
                "truncated_summaries": int((self._summary_lengths(rows) >= settings.max_target_length).sum()),
            }
        return counts | {"reader": report}

    def _summary_lengths(self, rows: TokenizedSplit) -> np.ndarray:
        """Return the number of ids of each summary (n,), without the labels of sentences that may follow it."""
        if not self.tokenizers.marks.labels:
            return rows.target_lengths
        start = self.tokenizers.sentence_start_id
        each = (rows[i] for i in range(len(rows)))
        return np.array([len(target) - int((source == start).sum()) for _, source, target in each])

    def padding_fraction(self) -> float:
        """Return the fraction of the first epoch's training tokens that are padding."""
        return self.train_sampler(0, 1).padding_fraction()

    def train_sampler(self, rank: int, world_size: int) -> TokenBudgetBatchSampler:
        """Return the training batches of one of ``world_size`` ranks."""
        rows, batch = self.tokenized("train"), self.settings.batch
        return TokenBudgetBatchSampler(
            rows.source_lengths,
            rows.target_lengths,
            layout=self.layout,
            max_tokens=batch.max_tokens,
            size=batch.size,
            bucket=batch.bucket,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and batch at which training resumes, as plain numbers and strings."""
        if self._train_sampler is None:
            return dict(self._resume_from)
        if self.trainer is None:
            return self._train_sampler.state_dict()
        # Batches whose step is done. The sampler's own count runs ahead, as the loader's workers prefetch.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        consumed = progress.processed
        if consumed >= self.trainer.num_training_batches:  # an epoch cut short by limit_train_batches ends there
            consumed = len(self._train_sampler)
        return self._train_sampler.state_dict(consumed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the position of a checkpoint; the next training loader resumes there."""
        self._resume_from = dict(state_dict)

    def _set_trainer_progress(self, sampler: TokenBudgetBatchSampler) -> None:
        """Set the trainer's count of this epoch's batches to the position of the sampler.

        The trainer has the count of the checkpoint. If the plan or the number of ranks changed, that count is wrong: an
        epoch that restarts would end early.
        """
        fit_loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        counted = fit_loop.epoch_loop.batch_progress.current
        ended = sampler.epoch > fit_loop.epoch_progress.current.processed
        moved = (len(sampler) if ended else sampler.position) - counted.processed
        for counter in ("ready", "started", "processed", "completed"):
            setattr(counted, counter, getattr(counted, counter) + moved)

    def _evaluation_loader(self, split: str, rank: int, world_size: int) -> DataLoader[Any]:
        rows = self.tokenized(split)
        batches = self._evaluation_batches(rows, rank, world_size)
        return DataLoader(rows, batch_sampler=batches, **self._loader_options())

    def _evaluation_batches(self, rows: Any, rank: int, world_size: int) -> list[list[int]]:
        lengths = list(map(self.layout.padded_length, rows.source_lengths.tolist())), rows.target_lengths.tolist()
        budget = self.settings.evaluation_max_tokens
        return evaluation_batches(*lengths, budget, rank=rank, world_size=world_size)

    def _loader_options(self, *, bucket_targets: bool = False) -> dict[str, Any]:
        workers = self.settings.batch.workers
        return {
            "collate_fn": Collator(self.tokenizers.source_pad_id, bucket_targets=bucket_targets, layout=self.layout),
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
