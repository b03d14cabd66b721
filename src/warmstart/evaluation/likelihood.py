"""How likely the model finds the references with their own document, with another one, and with none.

    likelihoods(model, data, "test", seed=0)

ROUGE of a short or careful training moves little between a model that reads and one that does not; the likelihood of
the reference tells them apart with far fewer examples. Unit: nats a label token, the end token included; lower is
better. A perplexity is its exponential.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from warmstart.evaluation.controls import derangement

Likelihoods = dict[str, dict[int, float]]  # by what was given, then by example
OWN, SHUFFLED, ALONE = "own", "shuffled_document", "decoder_alone"


def likelihoods(model: Any, data: Any, split: str, *, seed: int, rank: int = 0, world_size: int = 1) -> Likelihoods:
    """Nats a token of each reference of this rank's share of ``split``, by what the model was given and by example.

    ``data`` is a ``SummarizationDataModule``. A split of one example has no other document to give.
    """
    share: dict[str, Any] = {"rank": rank, "world_size": world_size}
    found = {OWN: nats_per_token(model, data.eval_dataloader(split, **share))}
    if (n := len(data.tokenized(split))) > 1:
        order = derangement(n, seed)
        found[SHUFFLED] = nats_per_token(model, data.eval_dataloader(split, documents=order, **share))
    return found | {ALONE: nats_per_token(model, data.eval_dataloader(split, **share), read_source=False)}


def in_order(shares: Iterable[Likelihoods]) -> dict[str, np.ndarray]:
    """The shares of all ranks as columns in the examples' order.

    Raises:
        ValueError: an example is missing, or one was judged twice.
    """
    merged: Likelihoods = {}
    for share in shares:
        for name, by_index in share.items():
            column = merged.setdefault(name, {})
            if twice := column.keys() & by_index.keys():
                raise ValueError(f"Examples {sorted(twice)} were judged on two ranks.")
            column.update(by_index)
    for column in merged.values():
        if sorted(column) != list(range(len(column))):
            raise ValueError("Some examples were judged on no rank.")
    return {name: np.array([column[i] for i in range(len(column))]) for name, column in merged.items()}


@torch.inference_mode()
def nats_per_token(
    model: Any, loader: Iterable[dict[str, torch.Tensor]], *, read_source: bool = True
) -> dict[int, float]:
    """Mean negative log-likelihood of each reference, by the batches' ``index``."""
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
