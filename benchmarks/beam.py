"""Beam search of BERT-base x GPT-2 against transformers' own class: same weights, same inputs, alternately.

    python benchmarks/beam.py --sources 4 --dtype float32 --repeats 5

Random weights: what the ids are does not change what they cost. No hub is needed.
"""

import argparse
import statistics
import time
from typing import Any

import torch
import transformers
from transformers import BertConfig, GPT2Config

import warmstart

SOURCE_TOKENS, NEW_TOKENS, END = 512, 64, 50256
SEARCH = {"num_beams": 4, "min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS, "no_repeat_ngram_size": 3}


def pair(library: Any, dtype: torch.dtype) -> Any:
    """BERT-base x GPT-2 of ``library``, untrained."""
    ids = {"decoder_start_token_id": END, "eos_token_id": END, "pad_token_id": END}
    halves = BertConfig(), GPT2Config(add_cross_attention=True, is_decoder=True)
    config = library.EncoderDecoderConfig.from_encoder_decoder_configs(*halves, **ids)
    return library.EncoderDecoderModel(config).eval().to(dtype)


def main() -> None:
    """Print medians in seconds, their ratio, and whether the ids agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    models = {library.__name__: pair(library, getattr(torch, chosen.dtype)) for library in (transformers, warmstart)}
    theirs, ours = models.values()
    theirs.load_state_dict(ours.state_dict(), strict=False)  # theirs has a pooler besides
    source = torch.randint(1000, 30000, (chosen.sources, SOURCE_TOKENS))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    ids = {}
    for _ in range(chosen.repeats):
        for name, model in models.items():
            began = time.perf_counter()
            ids[name] = model.generate(source, attention_mask=torch.ones_like(source), **SEARCH)
            seconds[name].append(time.perf_counter() - began)
    medians = [statistics.median(values) for values in seconds.values()]
    print(f"{chosen.sources} sources of {SOURCE_TOKENS} tokens, {NEW_TOKENS} new, beam 4, {chosen.dtype}:")
    print(", ".join(f"{name} {median:.2f} s" for name, median in zip(models, medians, strict=True)), end=", ")
    print(f"ratio {medians[0] / medians[1]:.1f}, ids equal: {torch.equal(*ids.values())}")


if __name__ == "__main__":
    main()
