"""Generate the summaries of all batches of a loader."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import torch

from warmstart import cpu
from warmstart.config.evaluation import GenerationSettings, LengthPenaltyKind
from warmstart.evaluation.resumable import KeptSummaries
from warmstart.seeding import seed_of


def generation_kwargs(settings: GenerationSettings, tokenizers: Any = None) -> dict[str, Any]:
    """Return arguments that define the search of ``generate`` completely.

    None unsets an option that the model's ``generation_config.json`` may set.

    Args:
        settings: The ``generation`` group of the config.
        tokenizers: The pair of tokenizers; only blocked n-grams of words need it.
    """
    kwargs = asdict(settings)
    del kwargs["dtype"]
    kwargs["length_penalty_kind"] = settings.length_penalty_kind.value
    if size := kwargs.pop("no_repeat_word_ngram_size"):
        kwargs["logits_processor"] = tokenizers.blocked_word_ngrams(size)
    # transformers has other names for the lengths too, and a ``top_k`` of 50 by default.
    kwargs |= {"max_length": None, "min_length": None, "top_k": 0 if settings.do_sample else None}
    kwargs["min_new_tokens"] = settings.min_new_tokens or None
    # A generation config with options that do not fit the search cannot be saved.
    if not settings.do_sample:
        kwargs |= {"temperature": None, "top_p": None}
    if settings.num_beams == 1:
        kwargs |= {"length_penalty": None, "early_stopping": None}
        del kwargs["length_penalty_kind"]
    return kwargs


@torch.inference_mode()
def try_search(model: Any, tokenizers: Any, generation: GenerationSettings) -> None:
    """Generate one token if the search is one that some decoders do not have, so that a fit fails before it trains.

    Raises:
        UnsupportedSearch: The model has no such search.
    """
    if generation.num_beams == 1 or generation.length_penalty_kind is LengthPenaltyKind.transformers:
        return
    ids = torch.tensor(tokenizers.encode_sources(["a"], 8), device=model.device)
    short = replace(generation, max_new_tokens=1, min_new_tokens=0)
    was_training = model.training
    model.eval()
    try:
        model.generate(ids, attention_mask=torch.ones_like(ids), **generation_kwargs(short, tokenizers))
    finally:
        model.train(was_training)


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
    """Generate the summaries of all batches.

    If tokens are sampled, each batch is seeded from ``seed`` and its lowest index. So the summaries do not depend on
    earlier batches or on the number of ranks.

    Args:
        model: The joint model.
        loader: Batches with ``input_ids``, ``attention_mask`` and ``index``.
        tokenizers: The pair of tokenizers.
        generation: The ``generation`` group of the config.
        device: Where the batches are moved to; by default the model's device.
        progress: Called with the number of examples after each batch.
        kept: Stores each summary.
        seed: Seed of sampling.

    Returns:
        Summaries by index of the example.
    """
    device = model.device if device is None else torch.device(device)
    was_training = model.training
    model.eval()
    kwargs = generation_kwargs(generation, tokenizers)
    by_index: dict[int, str] = {}
    try:
        with cpu.decoding(model):  # prepared once for all batches
            for batch in loader:
                if generation.do_sample:
                    torch.manual_seed(seed_of(seed, int(batch["index"].min())))
                ids = model.generate(
                    batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device), **kwargs
                )
                # Without the start token: if it is the end token too, decoding would stop at once.
                texts = tokenizers.decode(ids[:, model.start_length :])
                by_index.update(zip(batch["index"].tolist(), texts, strict=True))
                if kept is not None:
                    kept.add(batch["index"].tolist(), texts)
                if progress is not None:
                    progress(len(texts))
    finally:
        model.train(was_training)
    return by_index
