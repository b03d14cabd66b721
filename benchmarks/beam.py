"""Beam search against transformers' own class, same weights, same inputs, alternately; and what the machine allows.

    python benchmarks/beam.py --sources 4 --dtype float32
    python benchmarks/beam.py --sources 16 --dtype bfloat16
    python benchmarks/beam.py --decoder bert --sources 4 --dtype float32

BERT-base x GPT-2 or BERT-base x BERT-base with random weights: what the ids are does not change what they cost. The
limit is the encoder alone, measured, and for each step whichever is longer: its weights and the keys and values that it
reads over the measured bandwidth of memory, or its multiplications over the rate of a large product.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import BertConfig, GPT2Config

import warmstart
from warmstart.training.allocator import keep_freed_memory

SOURCE_TOKENS, NEW_TOKENS, BEAMS = 512, 64, 4
SEARCH = {
    "num_beams": BEAMS,
    "min_new_tokens": NEW_TOKENS,
    "max_new_tokens": NEW_TOKENS,
    "no_repeat_ngram_size": 3,
}


def pair(library: Any, decoder: str, dtype: torch.dtype) -> Any:
    """BERT-base and a decoder of ``library``, untrained."""
    flags = {"add_cross_attention": True, "is_decoder": True}
    end = 50256 if decoder == "gpt2" else 102
    ids = {"decoder_start_token_id": end, "eos_token_id": end, "pad_token_id": end}
    halves = BertConfig(), GPT2Config(**flags) if decoder == "gpt2" else BertConfig(**flags)
    config = library.EncoderDecoderConfig.from_encoder_decoder_configs(*halves, **ids)
    return library.EncoderDecoderModel(config).eval().to(dtype)


def median_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def limit(model: Any, source: torch.Tensor, dtype: torch.dtype) -> tuple[float, str]:
    """Seconds that the encoder and ``NEW_TOKENS`` steps take at the least, and what they are made of."""
    with torch.no_grad():
        encoder = median_seconds(lambda: model.encoder(source, attention_mask=torch.ones_like(source)))
    square = torch.randn(2048, 2048).to(dtype)
    rate = 2 * 2048**3 / median_seconds(lambda: square @ square)
    large = torch.randn(2**26)
    bandwidth = large.numel() * 4 / median_seconds(large.sum)
    width, layers = model.config.decoder.hidden_size, model.config.decoder.num_hidden_layers
    rows = len(source) * BEAMS
    # All of the decoder's matrices once, but not those of the source's keys and values; its embeddings are looked up.
    read = sum(p.numel() for p in model.decoder.parameters()) - 2 * layers * width * width
    kept = layers * 2 * width * (len(source) * SOURCE_TOKENS + rows * NEW_TOKENS / 2)
    step_bytes = (read + kept) * square.element_size() / bandwidth
    step_flops = 2 * rows * (read + layers * 2 * width * (SOURCE_TOKENS + NEW_TOKENS / 2)) / rate
    said = f"encoder {encoder:.2f} s, {rate / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s, a step "
    said += f"{1e3 * step_bytes:.0f} ms of reading and {1e3 * step_flops:.0f} ms of multiplying"
    source_flops = 2 * source.numel() * 2 * layers * width * width / rate  # its keys and values, made once
    return encoder + source_flops + NEW_TOKENS * max(step_bytes, step_flops), said


def cross_bytes(model: Any, source: torch.Tensor) -> int:
    """Bytes of cross-attention's keys and values in a search of three tokens."""
    short = SEARCH | {"min_new_tokens": 3, "max_new_tokens": 3, "return_dict_in_generate": True}
    cache = model.generate(source, attention_mask=torch.ones_like(source), **short).past_key_values
    layers = cache.cross_attention_cache.layers
    return sum(x.numel() * x.element_size() for layer in layers for x in (layer.keys, layer.values))


def main() -> None:
    """Print medians in seconds, their ratio, whether the ids agree, the limit and the caches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", choices=["gpt2", "bert"], default="gpt2")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()
    keep_freed_memory()  # for both, as an evaluation here does
    torch.manual_seed(0)
    dtype = getattr(torch, chosen.dtype)
    models = {library.__name__: pair(library, chosen.decoder, dtype) for library in (transformers, warmstart)}
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
    least, made_of = limit(ours, source, dtype)
    medians = [statistics.median(values) for values in seconds.values()]
    print(f"BERT-base x {chosen.decoder}, {chosen.sources} sources of {SOURCE_TOKENS} tokens, ", end="")
    print(f"{NEW_TOKENS} new, {BEAMS} beams, {chosen.dtype}, medians of {chosen.repeats}:")
    print(", ".join(f"{name} {median:.2f} s" for name, median in zip(models, medians, strict=True)), end=", ")
    print(f"ratio {medians[0] / medians[1]:.2f}, ids equal: {torch.equal(*ids.values())}")
    print(f"limit {least:.2f} s: ratio {medians[0] / least:.2f}, reached {least / medians[1]:.0%} of it ({made_of})")
    caches = [cross_bytes(model, source) for model in models.values()]
    print(f"cross-attention's keys and values: {caches[0] / 1e6:.0f} MB and {caches[1] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
