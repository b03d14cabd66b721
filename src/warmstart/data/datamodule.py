"""All stages of the data's way as one LightningDataModule.

    prepare_data  one process of each node tokenizes what the cache lacks
    setup         every process memory-maps it
    loaders       batches planned from seed and epoch; each rank takes its slice

The trainer must be built with ``use_distributed_sampler=False``: the slicing is done here, and Lightning's would do it
a second time.
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
from warmstart.errors import UserError

_STAGES = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}


class ResumableLoader(DataLoader):
    """A training loader that Lightning recognises as able to continue in the middle of an epoch."""

    def __init__(self, *args: Any, state: Callable[[], dict[str, Any]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that was trained on."""
        return self._state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue there."""
        assert isinstance(self.batch_sampler, TokenBudgetBatchSampler)
        self.batch_sampler.load_state_dict(state)


class SummarizationDataModule(L.LightningDataModule):
    """Texts, token cache and loaders of one data set under one pair of tokenizers."""

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
                raise UserError(f"{option}={value} lets no example into a batch. Set 1 or more.")
        self.settings = settings
        self.tokenizers = tokenizers
        self.seed = seed
        self._source = source
        self._tokenized: dict[str, TokenizedSplit] = {}
        self._train_sampler: TokenBudgetBatchSampler | None = None
        self._resume_from: dict[str, Any] = {}

    @property
    def source(self) -> Source:
        """The texts, read at first use."""
        if self._source is None:
            self._source = load_source(self.settings)
        return self._source

    def examples(self, split: str) -> Sequence[Example]:
        """The texts of a split; a batch's ``index`` counts in them."""
        return self.source.split(split)

    def prepare_data(self) -> None:
        for split in self.source.names:
            self.tokenized(split)

    def setup(self, stage: str | None = None) -> None:
        for split in _STAGES.get(stage or "", self.source.names):
            self.tokenized(split)

    def tokenized(self, split: str) -> TokenizedSplit:
        """The split's ids, from the cache or tokenized now."""
        if split not in self._tokenized:
            self._tokenized[split] = tokenized_split(
                self.examples(split),
                self.tokenizers,
                name=split,
                texts_fingerprint=self.source.split_fingerprint(split),
                max_source_length=self.settings.max_source_length,
                max_target_length=self.settings.max_target_length,
                cache_dir=self.settings.cache_dir,
                processes=self.settings.processes,
            )
        return self._tokenized[split]

    def train_dataloader(self) -> DataLoader:
        """This rank's training batches, from where a loaded checkpoint stood."""
        rank, world_size = self._rank_and_world_size()
        sampler = self.train_sampler(rank, world_size)
        if self._resume_from:
            sampler.load_state_dict(self._resume_from)
            if self.trainer is not None:
                self._count_from(sampler)
        elif self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
        self._train_sampler = sampler
        return ResumableLoader(
            self.tokenized("train"),
            batch_sampler=sampler,
            state=self.state_dict,
            **self._loader_options(in_parts=True),
        )

    def val_dataloader(self) -> DataLoader:
        """This rank's validation batches; over all ranks each example once."""
        return self._evaluation_loader("validation", *self._rank_and_world_size())

    def test_dataloader(self) -> DataLoader:
        """This rank's test batches; over all ranks each example once."""
        return self._evaluation_loader("test", *self._rank_and_world_size())

    def eval_dataloader(
        self,
        split: str,
        documents: np.ndarray | None = None,
        done: Collection[int] = (),
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> DataLoader:
        """The whole split, each example exactly once over all ranks.

        ``documents`` is a permutation: example ``i`` keeps its summary and is given the document of ``documents[i]``.
        Batches of which every example is ``done`` are left out; the others are what they would be without it. They are
        the same batches for any number of ranks, so ranks may have unequal numbers of them.
        """
        rows: Any = self.tokenized(split)
        if documents is not None:
            rows = ExchangedDocuments(rows, documents)
        batches = self._evaluation_batches(rows, 0, 1)
        batches = [batch for batch in batches if not all(i in done for i in batch)]
        return DataLoader(rows, batch_sampler=batches[rank::world_size], **self._loader_options())

    def batches_in_epoch(self, world_size: int = 1) -> int:
        """Training batches of each rank in every epoch."""
        return len(self.train_sampler(0, world_size))

    def place_of(self, checkpoint: dict[str, Any], world_size: int = 1) -> tuple[int, int]:
        """Epoch and batch, of each rank, at which a fit goes on from a checkpoint."""
        return self.train_sampler(0, world_size).place_of(checkpoint[type(self).__qualname__])

    def row_counts(self) -> dict[str, dict[str, int]]:
        """What became of the rows: of each split, and in ``reader`` what its reader had left out before.

        ``skipped`` are those that cleaning or a limit took; ``sampled`` says whether those that were kept are a random
        sample, as a limit takes it. ``truncated`` are texts that fill their maximum length: all
        that were cut, and the few that fit exactly.
        """
        report, settings = dict(self.source.report), self.settings
        counts = {}
        for split in self.source.names:
            read, kept = report.pop(f"{split}_read"), report.pop(f"{split}_examples")
            rows = self.tokenized(split)
            counts[split] = {
                "read": read,
                "kept": kept,
                "skipped": read - kept,
                "sampled": bool(report.pop(f"{split}_sampled")),
                "truncated_documents": int((rows.source_lengths >= settings.max_source_length).sum()),
                "truncated_summaries": int((rows.target_lengths >= settings.max_target_length).sum()),
            }
        return counts | {"reader": report}

    def padding_fraction(self) -> float:
        """Share of the first epoch's training tokens that are padding."""
        return self.train_sampler(0, 1).padding_fraction()

    def train_sampler(self, rank: int, world_size: int) -> TokenBudgetBatchSampler:
        """The training batches of one rank among so many."""
        rows, batch = self.tokenized("train"), self.settings.batch
        return TokenBudgetBatchSampler(
            rows.source_lengths,
            rows.target_lengths,
            max_tokens=batch.max_tokens,
            size=batch.size,
            bucket=batch.bucket,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batch that training continues at; plain numbers and strings."""
        if self._train_sampler is None:
            return dict(self._resume_from)
        if self.trainer is None:
            return self._train_sampler.state_dict()
        # Batches whose step is done. Not the sampler's own count, which runs ahead with the loader's workers.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        consumed = progress.processed
        if consumed >= self.trainer.num_training_batches:  # an epoch cut short by limit_train_batches ends there
            consumed = len(self._train_sampler)
        return self._train_sampler.state_dict(consumed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the position of a checkpoint; it counts when the training loader is made."""
        self._resume_from = dict(state_dict)

    def _count_from(self, sampler: TokenBudgetBatchSampler) -> None:
        """Let the trainer, too, count this epoch's batches from where the sampler stands.

        It has the checkpoint's count, which is another where the plan or the number of ranks is: an epoch that begins
        anew would end early by so many batches.
        """
        fit_loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        counted = fit_loop.epoch_loop.batch_progress.current
        ended = sampler.epoch > fit_loop.epoch_progress.current.processed
        moved = (len(sampler) if ended else sampler.position) - counted.processed
        for moment in ("ready", "started", "processed", "completed"):
            setattr(counted, moment, getattr(counted, moment) + moved)

    def _evaluation_loader(self, split: str, rank: int, world_size: int) -> DataLoader:
        rows = self.tokenized(split)
        batches = self._evaluation_batches(rows, rank, world_size)
        return DataLoader(rows, batch_sampler=batches, **self._loader_options())

    def _evaluation_batches(self, rows: Any, rank: int, world_size: int) -> list[list[int]]:
        lengths = rows.source_lengths.tolist(), rows.target_lengths.tolist()
        budget = self.settings.evaluation_max_tokens
        return evaluation_batches(*lengths, budget, rank=rank, world_size=world_size)

    def _loader_options(self, *, in_parts: bool = False) -> dict[str, Any]:
        workers = self.settings.batch.workers
        return {
            "collate_fn": Collator(self.tokenizers.source_pad_id, in_parts=in_parts),
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
