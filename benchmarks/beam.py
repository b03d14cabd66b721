"""Compare beam search with that of transformers' class, for the same weights and inputs, and with the machine's limit.

    python benchmarks/beam.py --sources 4 --dtype float32
    python benchmarks/beam.py --sources 16 --dtype bfloat16
    python benchmarks/beam.py --decoder bert --sources 4 --dtype float32

BERT-base x GPT-2 or BERT-base x BERT-base with random weights: the ids do not change the cost. Each library has its own
process. warmstart keeps freed memory, as an evaluation does; transformers is timed with and without that.

The limit is the measured time of the encoder, and for each step the longer of two times: reading weights, keys and
values at the measured memory bandwidth, or doing the multiplications at the speed of a large matrix product.
"""

import argparse
import importlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import transformers
from transformers import BertConfig, GPT2Config

import warmstart

SOURCE_TOKENS, NEW_TOKENS, BEAMS = 512, 64, 4
THEIRS, OURS = "transformers", "warmstart"
KINDS = ((THEIRS, THEIRS, False), (f"{THEIRS}, freed memory kept", THEIRS, True), (OURS, OURS, True))
spawn = multiprocessing.get_context("spawn")
SEARCH = {
    "num_beams": BEAMS,
    "min_new_tokens": NEW_TOKENS,
    "max_new_tokens": NEW_TOKENS,
    "no_repeat_ngram_size": 3,
}


def pair(library: Any, decoder: str, dtype: torch.dtype) -> Any:
    """Return BERT-base and a decoder, untrained, joined by ``library``."""
    flags: dict[str, Any] = {"add_cross_attention": True, "is_decoder": True}
    end = 50256 if decoder == "gpt2" else 102
    ids = {"decoder_start_token_id": end, "eos_token_id": end, "pad_token_id": end}
    configs = BertConfig(), GPT2Config(**flags) if decoder == "gpt2" else BertConfig(**flags)
    config = library.EncoderDecoderConfig.from_encoder_decoder_configs(*configs, **ids)
    return library.EncoderDecoderModel(config).eval().to(dtype)


def median_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median time of ``work``."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def limit(model: Any, source: torch.Tensor, dtype: torch.dtype) -> tuple[float, str]:
    """Return the seconds that the encoder and ``NEW_TOKENS`` steps take at least, and their composition as text."""
    with torch.no_grad():
        encoder = median_seconds(lambda: model.encoder(source, attention_mask=torch.ones_like(source)))
    square = torch.randn(2048, 2048).to(dtype)
    flops_per_second = 2 * 2048**3 / median_seconds(lambda: square @ square)
    large = torch.randn(2**26)
    bandwidth = large.numel() * 4 / median_seconds(large.sum)
    width, layers = model.config.decoder.hidden_size, model.config.decoder.num_hidden_layers
    rows = len(source) * BEAMS
    # A step reads all of the decoder's matrices except those of the source's keys and values.
    read = sum(p.numel() for p in model.decoder.parameters()) - 2 * layers * width * width
    kept = layers * 2 * width * (len(source) * SOURCE_TOKENS + rows * NEW_TOKENS / 2)
    step_bytes = (read + kept) * square.element_size() / bandwidth
    step_flops = 2 * rows * (read + layers * 2 * width * (SOURCE_TOKENS + NEW_TOKENS / 2)) / flops_per_second
    text = f"encoder {encoder:.2f} s, {flops_per_second / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s, a step "
    text += f"{1e3 * step_bytes:.0f} ms of reading and {1e3 * step_flops:.0f} ms of multiplying"
    # Cross-attention computes the keys and values of the source once.
    source_seconds = 2 * source.numel() * 2 * layers * width * width / flops_per_second
    return encoder + source_seconds + NEW_TOKENS * max(step_bytes, step_flops), text


def cross_bytes(model: Any, source: torch.Tensor) -> int:
    """Return the bytes of cross-attention's keys and values in a search of three tokens."""
    short = SEARCH | {"min_new_tokens": 3, "max_new_tokens": 3, "return_dict_in_generate": True}
    cache = model.generate(source, attention_mask=torch.ones_like(source), **short).past_key_values
    layers = cache.cross_attention_cache.layers
    return sum(x.numel() * x.element_size() for layer in layers for x in (layer.keys, layer.values))


def worker(library: str, kept: bool, chosen: argparse.Namespace, pipe: Connection) -> None:
    """Run one library: send seconds and ids for each request, and at the end the size of its caches and the limit."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if kept:
        warmstart.cpu.keep_freed_memory()
    if library == "warmstart":
        warmstart.cpu.build()  # as an evaluation does
    torch.manual_seed(0)
    dtype = getattr(torch, chosen.dtype)
    model = pair(importlib.import_module(library), chosen.decoder, dtype)
    model.load_state_dict(torch.load(chosen.weights), strict=False)  # transformers' class also has a pooler
    source = torch.randint(1000, 30000, (chosen.sources, SOURCE_TOKENS), generator=torch.Generator().manual_seed(1))
    while pipe.recv() == "search":
        began = time.perf_counter()
        ids = model.generate(source, attention_mask=torch.ones_like(source), **SEARCH)
        pipe.send((time.perf_counter() - began, ids.tolist()))
    pipe.send((cross_bytes(model, source), limit(model, source, dtype) if library == "warmstart" else None))


def main() -> None:
    """Print medians in seconds, their ratios, whether the ids agree, the limit and the caches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", choices=["gpt2", "bert"], default="gpt2")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        chosen.weights = f"{folder}/weights.pt"
        torch.save(pair(warmstart, chosen.decoder, getattr(torch, chosen.dtype)).state_dict(), chosen.weights)
        pipes: dict[str, Connection] = {}
        processes = []
        for name, library, kept in KINDS:
            pipes[name], other = spawn.Pipe()
            processes.append(spawn.Process(target=worker, args=(library, kept, chosen, other)))
            processes[-1].start()
        seconds: dict[str, list[float]] = {name: [] for name in pipes}
        ids = {}
        for repeat in range(-1, chosen.repeats):  # the first one allocates memory and compiles
            for name, pipe in pipes.items():
                pipe.send("search")
                taken, ids[name] = pipe.recv()
                seconds[name] += [taken] if repeat >= 0 else []
        found = {}
        for (name, pipe), process in zip(pipes.items(), processes, strict=True):
            pipe.send("end")
            found[name] = pipe.recv()
            process.join()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours, caches, (least, made_of) = medians[OURS], found[OURS][0], found[OURS][1]
    print(f"BERT-base x {chosen.decoder}, {chosen.sources} sources of {SOURCE_TOKENS} tokens, ", end="")
    print(f"{NEW_TOKENS} new, {BEAMS} beams, {chosen.dtype}, medians of {chosen.repeats}:")
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s ({min(seconds[name]):.2f} to {max(seconds[name]):.2f}), ", end="")
        print(f"ratio {median / ours:.2f}, ids equal: {ids[name] == ids[OURS]}")
    print(f"limit {least:.2f} s: ratio {medians[THEIRS] / least:.2f}, reached {least / ours:.0%} of it ({made_of})")
    print(f"cross-attention's keys and values: {found[THEIRS][0] / 1e6:.0f} MB and {caches / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
