"""The few validation examples that are summarized at each validation, so that a ROUGE curve costs little.

The examples are the first ones of the split, not those of the first batches: batches come longest first, so the sample
would only contain the longest documents. Their summaries are generated after the validation pass, in larger batches.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from warmstart.collectives import of_all_ranks

GENERATION_BATCH = 16  # examples


class ValidationSample:
    """Collects the examples whose ``index`` is that of a reference, then summarizes them.

    Args:
        references: targets of the examples, of all ranks, whole; labels could be cut, and their text decoded otherwise.
        source_pad_id: id that pads sources.
    """

    def __init__(self, references: Sequence[str], source_pad_id: int = 0) -> None:
        """Start with no examples."""
        self.references = references
        self.source_pad_id = source_pad_id
        self._examples: list[tuple[int, Tensor, Tensor]] = []  # index, source ids (S,) or (windows, S), and their mask

    def clear(self) -> None:
        """Drop the examples of the last validation pass."""
        self._examples = []

    def take(self, batch: dict[str, Tensor]) -> None:
        """Collect the batch's examples that belong to the sample."""
        if not self.references:
            return
        for row, index in enumerate(batch["index"].tolist()):
            if index < len(self.references):
                ids, mask = batch["input_ids"][row], batch["attention_mask"][row]
                kept = _extent(mask)
                self._examples.append((index, ids[kept], mask[kept]))

    def summarize(self, model: Any, tokenizers: Any, generation: dict[str, Any]) -> list[dict[str, Any]]:
        """Generate a summary for each collected example.

        Args:
            model: an ``EncoderDecoderModel``.
            tokenizers: the pair whose target tokenizer decodes.
            generation: keyword arguments of ``model.generate``.

        Returns:
            ``index``, ``prediction`` and ``reference`` of each example.
        """
        samples: list[dict[str, Any]] = []
        examples = sorted(self._examples, key=lambda example: -example[1].numel())
        for start in range(0, len(examples), GENERATION_BATCH):
            batch = examples[start : start + GENERATION_BATCH]
            ids = model.generate(
                _stacked([source for _, source, _ in batch], self.source_pad_id),
                attention_mask=_stacked([mask for *_, mask in batch], 0),
                # transformers would turn it on under FSDP. Parameters are gathered here, so ranks need not keep step.
                synced_gpus=False,
                **generation,
            )
            # Drop the start token: if it is also the end token, decoding would stop before the first word.
            predictions = tokenizers.decode(ids[:, model.start_length :])
            for (index, *_), prediction in zip(batch, predictions, strict=True):
                samples.append({"index": index, "prediction": prediction, "reference": self.references[index]})
        return samples


def _extent(mask: Tensor) -> tuple[slice, ...]:
    """Return the smallest part of a source, from its first position on, that holds all that is not masked."""
    last = mask.nonzero().amax(dim=0) + 1
    return tuple(slice(int(end)) for end in last)


def _stacked(sources: list[Tensor], value: int) -> Tensor:
    """Pad sources (S,) or (windows, S) to the largest of each dimension, and stack them."""
    dims = max(source.dim() for source in sources)
    sources = [source if source.dim() == dims else source[None] for source in sources]
    shape = [max(sizes) for sizes in zip(*(source.shape for source in sources), strict=True)]
    stacked = sources[0].new_full((len(sources), *shape), value)
    for one, source in zip(stacked, sources, strict=True):
        one[tuple(map(slice, source.shape))] = source
    return stacked


def gather_samples(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples of all ranks on every rank, ordered by index."""
    everywhere = [sample for own in of_all_ranks(samples) for sample in own]
    return sorted(everywhere, key=lambda sample: sample["index"])
