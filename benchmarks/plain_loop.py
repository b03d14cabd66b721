"""Compare a training step in a plain loop with transformers' class, BERT-base x GPT-2: seconds and peak memory.

    python benchmarks/plain_loop.py
    python benchmarks/plain_loop.py --dtype float32 --dropout 0

Random weights, 4 examples of 256 source and 64 target tokens; forward and backward without an optimizer. ``forward`` is
``model(..., labels=labels).loss``, ``training_loss`` is ``model.training_loss(...).mean``. Seconds are medians,
measured in turn in one process; CPU seconds depend less on other work on the machine. Each peak is the resident set
size of a separate process. ``--keep-freed-memory`` calls ``warmstart.cpu.keep_freed_memory()`` first, for all.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import BertConfig, GPT2Config

import warmstart

SOURCE, TARGET, END = 256, 64, 50256
WAYS = ("transformers", "forward", "training_loss")


def build(way: str, chosen: argparse.Namespace) -> Any:
    """Return the model of one library, in training mode."""
    library: Any = transformers if way == "transformers" else warmstart
    dropout = chosen.dropout
    encoder = BertConfig(
        num_hidden_layers=chosen.layers, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    gpt2: Any = GPT2Config  # its signature lacks the keywords of cross-attention
    decoder = gpt2(
        n_layer=chosen.layers,
        add_cross_attention=True,
        is_decoder=True,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
    )
    ids = {"decoder_start_token_id": END, "eos_token_id": END, "pad_token_id": END}
    torch.manual_seed(0)
    config = library.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **ids)
    return library.EncoderDecoderModel(config).train()


def step(way: str, model: Any, batch: dict[str, Tensor], dtype: str) -> tuple[float, float]:
    """Return the wall-clock and CPU seconds of a forward and backward pass."""
    began, worked = time.perf_counter(), time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = model.training_loss(**batch).mean if way == "training_loss" else model(**batch).loss
    loss.backward()
    taken = time.perf_counter() - began, time.process_time() - worked
    model.zero_grad()
    return taken


def main() -> None:
    """Print seconds, CPU seconds and peak memory of each way, and their ratios to transformers'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--layers", type=int, default=12, help="of each submodel")
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 (autocast) or float32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep-freed-memory", action="store_true")
    parser.add_argument("--only", choices=WAYS, help="two steps of one way, and its peak in bytes")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(chosen.threads)
    if chosen.keep_freed_memory:
        warmstart.cpu.keep_freed_memory()
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(1000, 30000, (chosen.rows, SOURCE), generator=generator)
    labels = torch.randint(1000, 50000, (chosen.rows, TARGET), generator=generator)
    batch = {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": labels}
    if chosen.only:
        model = build(chosen.only, chosen)
        for _ in range(2):
            step(chosen.only, model, batch, chosen.dtype)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    # Measure the peaks before any model exists: Linux adds the parent's memory to the peak of a new process.
    command = [sys.executable, *sys.argv, "--only"]
    peaks = {way: int(subprocess.run([*command, way], check=True, capture_output=True).stdout) for way in WAYS}
    models = {way: build(way, chosen) for way in WAYS}
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for repeat in range(chosen.repeats + 1):
        for way, model in models.items():
            seconds = step(way, model, batch, chosen.dtype)
            if repeat:  # the first is a warm-up
                taken[way].append(seconds)
    medians = {way: [statistics.median(column) for column in zip(*taken[way], strict=True)] for way in WAYS}
    print(f"{chosen.rows} examples of {SOURCE} and {TARGET} tokens, {chosen.dtype}, dropout {chosen.dropout:g}:")
    for way, (seconds, processor) in medians.items():
        ratios = [value / peer for value, peer in zip((seconds, processor), medians["transformers"], strict=True)]
        print(
            f"{way:13} {seconds:6.2f} s ({ratios[0]:.2f})  CPU {processor:6.2f} s ({ratios[1]:.2f})  "
            f"peak {peaks[way] / 1e9:.2f} GB ({peaks[way] / peaks['transformers']:.2f})"
        )


if __name__ == "__main__":
    main()
