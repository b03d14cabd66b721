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

OWN, SHUFFLED, ALONE = "own", "shuffled_document", "decoder_alone"


def likelihoods(model: Any, data: Any, split: str, *, seed: int) -> dict[str, np.ndarray]:
    """Nats a token of each reference of ``split``, by what the model was given.

    ``data`` is a ``SummarizationDataModule``. A split of one example has no other document to give.
    """
    found = {OWN: nats_per_token(model, data.eval_dataloader(split))}
    n = len(found[OWN])
    if n > 1:
        order = derangement(n, seed)
        found[SHUFFLED] = nats_per_token(model, data.eval_dataloader(split, documents=order))
    return found | {ALONE: nats_per_token(model, data.eval_dataloader(split), read_source=False)}


@torch.inference_mode()
def nats_per_token(model: Any, loader: Iterable[dict[str, torch.Tensor]], *, read_source: bool = True) -> np.ndarray:
    """Mean negative log-likelihood of each reference, in the order of each batch's ``index``."""
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
    return np.array([by_index[index] for index in sorted(by_index)])
