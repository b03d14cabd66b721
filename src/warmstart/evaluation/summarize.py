"""Batches to summaries: the model's ``generate`` over a loader, by example."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import torch

from warmstart import cpu
from warmstart.config.evaluation import GenerationSettings
from warmstart.evaluation.resumable import KeptSummaries
from warmstart.seeding import seed_of


def generation_kwargs(settings: GenerationSettings) -> dict[str, Any]:
    """Arguments for ``generate`` that state the search whole.

    None unsets an option: a ``generation_config.json`` (of an export, of another library) may hold another search.
    """
    kwargs = asdict(settings)
    del kwargs["dtype"]
    # transformers' other names for the lengths, and a ``top_k`` that is 50 where nobody sets it
    kwargs |= {"max_length": None, "min_length": None, "top_k": 0 if settings.do_sample else None}
    kwargs["min_new_tokens"] = settings.min_new_tokens or None
    # Out of place, these are refused when a generation config is saved.
    if not settings.do_sample:
        kwargs |= {"temperature": None, "top_p": None}
    if settings.num_beams == 1:
        kwargs |= {"length_penalty": None, "early_stopping": None}
    return kwargs


@torch.inference_mode()
def summarize_batches(
    model: Any,
    loader: Iterable[dict[str, torch.Tensor]],
    tokenizers: Any,
    generation: GenerationSettings,
    *,
    device: torch.device | str | None = None,
    progress: Callable[[int], None] | None = None,
    kept: KeptSummaries | None = None,
    seed: int = 0,
) -> dict[int, str]:
    """Summaries by the batches' ``index``.

    ``progress`` is told how many examples each batch finished, ``kept`` is given each summary. Where the search
    samples, each batch is seeded by ``seed`` and its own first example, so that it does not matter which batches came
    before, or went to another rank.
    """
    device = model.device if device is None else torch.device(device)
    was_training = model.training
    model.eval()
    kwargs = generation_kwargs(generation)
    by_index: dict[int, str] = {}
    try:
        with cpu.decoding(model):  # once for all batches
            for batch in loader:
                if generation.do_sample:
                    torch.manual_seed(seed_of(seed, int(batch["index"].min())))
                ids = model.generate(
                    batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device), **kwargs
                )
                # Without the start token: where start = end, decoding would stop before the first word.
                texts = tokenizers.decode(ids[:, 1:])
                by_index.update(zip(batch["index"].tolist(), texts, strict=True))
                if kept is not None:
                    kept.add(batch["index"].tolist(), texts)
                if progress is not None:
                    progress(len(texts))
    finally:
        model.train(was_training)
    return by_index
