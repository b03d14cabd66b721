"""Likelihood of the references given their own document, another document, and no document.

    likelihoods(model, data, "test", seed=0)

After a short training, ROUGE hardly differs between a model that reads its source and one that does not. The likelihood
of the references separates them with far fewer examples. Each reference has a value in nats per label token, including
the end token; lower is better. A score is the mean of these values, so every reference has the same weight. It is not
``validation/loss``, the mean over all label tokens of a split, and its exponential is not the perplexity. Models with
different tokenizers are compared in bits per byte (``bits_per_byte``).

For a model that selects sentences the unit is nats per sentence. It has the likelihood given its own document only,
because its labels are those of that document's sentences.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from warmstart.evaluation.controls import derangement

BITS_PER_BYTE = "bits_per_byte"
Likelihoods = dict[str, dict[int, float]]  # by source (OWN, SHUFFLED, ALONE), then by index of the example
OWN, SHUFFLED, ALONE = "own", "shuffled_document", "decoder_alone"


def likelihoods(model: Any, data: Any, split: str, *, seed: int, rank: int = 0, world_size: int = 1) -> Likelihoods:
    """Compute the negative log-likelihood of the references in this rank's share of a split.

    Args:
        model: The joint model.
        data: A ``SummarizationDataModule``.
        split: The split.
        seed: Seed of the shuffled documents.
        rank: This rank.
        world_size: Number of ranks.

    Returns:
        Nats per token, by source and by index of the example. ``SHUFFLED`` is missing if the split has one example; a
        model whose labels are of the source has ``OWN`` only.
    """
    share: dict[str, Any] = {"rank": rank, "world_size": world_size}
    found = {OWN: nats_per_token(model, data.eval_dataloader(split, **share))}
    if model.labels_are_of_source:
        return found
    if (n := len(data.tokenized(split))) > 1:
        order = derangement(n, seed)
        found[SHUFFLED] = nats_per_token(model, data.eval_dataloader(split, documents=order, **share))
    return found | {ALONE: nats_per_token(model, data.eval_dataloader(split, **share), read_source=False)}


def in_order(shares: Iterable[Likelihoods]) -> dict[str, np.ndarray]:
    """Merge the shares of all ranks.

    Returns:
        By source, nats per token of all examples in order (n,).

    Raises:
        ValueError: An example is missing, or was evaluated on two ranks.
    """
    merged: Likelihoods = {}
    for share in shares:
        for name, by_index in share.items():
            column = merged.setdefault(name, {})
            if twice := column.keys() & by_index.keys():
                raise ValueError(f"Examples {sorted(twice)} were evaluated on two ranks.")
            column.update(by_index)
    for column in merged.values():
        if sorted(column) != list(range(len(column))):
            raise ValueError("Some examples were evaluated on no rank.")
    return {name: np.array([column[i] for i in range(len(column))]) for name, column in merged.items()}


def bits_per_byte(
    nats_per_token_n: np.ndarray, tokens: Sequence[int], texts: Sequence[str], references: Sequence[str]
) -> np.ndarray:
    """Convert nats per token to bits per byte of the reference in UTF-8, which does not depend on the tokenizer.

    A tokenizer that loses a part of a text, such as its capitals, or a limit that cuts it makes the rest more likely,
    so such references have no value.

    Args:
        nats_per_token_n: Nats per label token of each reference (n,).
        tokens: Number of label tokens of each reference, the end token included.
        texts: The text of the label tokens of each reference.
        references: The references.

    Returns:
        Bits per byte (n,); NaN where the text is not that of the reference. Blanks and line breaks count as equal.
    """
    found = np.full(len(references), np.nan)
    for i, (text, reference) in enumerate(zip(texts, references, strict=True)):
        whole = " ".join(reference.split())
        if whole and " ".join(text.split()) == whole:
            found[i] = nats_per_token_n[i] * tokens[i] / math.log(2) / len(whole.encode())
    return found


@torch.inference_mode()
def nats_per_token(
    model: Any, loader: Iterable[dict[str, torch.Tensor]], *, read_source: bool = True
) -> dict[int, float]:
    """Compute the mean negative log-likelihood per token of each reference.

    Args:
        model: The joint model.
        loader: Batches with ``input_ids``, ``attention_mask``, ``labels`` and ``index``.
        read_source: Whether the decoder attends to the source.

    Returns:
        Nats per token, by index of the example.
    """
    was_training = model.training
    model.eval()
    by_index: dict[int, float] = {}
    try:
        for batch in loader:
            given = [batch[name].to(model.device) for name in ("input_ids", "attention_mask", "labels")]
            nll_B, tokens_B = model.likelihood(*given, read_source=read_source)
            by_index.update(zip(batch["index"].tolist(), (nll_B / tokens_B).tolist(), strict=True))
    finally:
        model.train(was_training)
    return by_index
