"""Profile a training step and a decoding step of BERT-base x GPT-2 with torch.profiler.

    python benchmarks/profiles.py                       # a training step of 8 examples, bf16 autocast, dropout 0.1
    python benchmarks/profiles.py --attention sdpa      # the same with transformers' attention
    python benchmarks/profiles.py --dropout 0 --compile
    python benchmarks/profiles.py --decode --sources 4 --dtype float32

Random weights, 512 source and 128 target tokens. A decoding step is the mean of 64 steps of a beam search with four
beams. The search computes the source's keys and values once; it does not include the encoder.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import BertConfig, GPT2Config
from transformers.modeling_outputs import BaseModelOutput

from warmstart import EncoderDecoderConfig, EncoderDecoderModel, cpu
from warmstart.cpu.kernels import CpuKernels
from warmstart.model.compiling import compile_layers
from warmstart.profiling.flops import training_flops
from warmstart.profiling.matrix_peak import matrix_peak

SOURCE, TARGET, NEW, END = 512, 128, 64, 50256


def pair(dropout: float, lean: bool) -> EncoderDecoderModel:
    """Return BERT-base x GPT-2, untrained."""
    ids = {"decoder_start_token_id": END, "eos_token_id": END, "pad_token_id": END}
    encoder = BertConfig(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    gpt2: Any = GPT2Config  # its signature lacks the keywords of cross-attention
    decoder = gpt2(
        add_cross_attention=True, is_decoder=True, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout
    )
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **ids))
    if lean:
        cpu.accelerate(model)
    return model


def training_step(chosen: argparse.Namespace) -> Any:
    """Return a function that does one training step."""
    model = pair(chosen.dropout, chosen.attention == "lean").train()
    if chosen.compile:
        compile_layers(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    source, labels = (
        torch.randint(1000, 30000, (chosen.rows, SOURCE)),
        torch.randint(1000, 50000, (chosen.rows, TARGET)),
    )

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=chosen.dtype == "bfloat16"):
            loss, _, tokens = model.training_loss(source, torch.ones_like(source), labels)
        (loss / tokens).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def recorded(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Show a kernel in torch's profiler, with the columns of a product or the number of queries."""

    def run(*args: Any) -> Any:
        names = {
            "product": lambda: f"product of {args[4]} columns",
            "attend": lambda: f"attention of {args[1].shape[2]} queries",
        }
        with record_function(f"warmstart, {names[name]() if name in names else name}"):
            return kernel(*args)

    return run


def decoding(chosen: argparse.Namespace) -> Any:
    """Return a function that does ``NEW`` steps of a beam search with an already encoded source."""
    for name in ("attend", "product", "gelu", "log_softmax"):
        setattr(CpuKernels, name, recorded(name, getattr(CpuKernels, name)))
    model: Any = pair(0.0, True)
    model.eval().to(getattr(torch, chosen.dtype))
    source = torch.randint(1000, 30000, (chosen.sources, SOURCE))
    mask = torch.ones_like(source)
    with torch.no_grad():
        states = model.encoder(source, attention_mask=mask)[0]
    search = {"num_beams": 4, "min_new_tokens": NEW, "max_new_tokens": NEW, "no_repeat_ngram_size": 3}
    return lambda: model.generate(encoder_outputs=BaseModelOutput(states), attention_mask=mask, **search)


def main() -> None:
    """Print the seconds without the profiler, and the operations that take most of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--attention", choices=["lean", "sdpa"], default="lean")
    parser.add_argument("--decode", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compile the layers, as trainer.compile does")
    parser.add_argument("--shapes", action="store_true", help="group operations by the shapes of their inputs")
    parser.add_argument("--lines", type=int, default=16)
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()
    cpu.keep_freed_memory()  # as in task=fit
    if chosen.decode:
        cpu.build()  # as in an evaluation
    torch.manual_seed(0)
    work, steps = (decoding(chosen), NEW) if chosen.decode else (training_step(chosen), 1)
    work()
    measured = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        measured.append((time.perf_counter() - began) / steps)
    seconds = statistics.median(measured)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=chosen.shapes) as watched:
        work()
    share: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in watched.key_averages(group_by_input_shape=chosen.shapes):
        name = f"{event.key} {event.input_shapes}" if chosen.shapes else event.key
        share[name] += event.self_cpu_time_total
        calls[name] += event.count
    total = sum(share.values())
    print(f"{'a decoding' if chosen.decode else 'a training'} step: {seconds:.3f} s; {chosen}")
    if not chosen.decode:
        precision = "bf16-mixed" if chosen.dtype == "bfloat16" else "32-true"
        peak = matrix_peak(torch.device("cpu"), precision).flops_per_second
        flops_per_second = chosen.rows * training_flops(pair(0.0, False), SOURCE, TARGET) / seconds
        mfu = flops_per_second / peak
        print(f"{flops_per_second / 1e9:.0f} model GFLOP/s, {mfu:.2f} of {peak / 1e9:.0f} GFLOP/s (MFU)")
    for name in sorted(share, key=lambda name: -share[name])[: chosen.lines]:
        print(
            f"{share[name] / 1e3 / steps:8.2f} ms  {share[name] / total:6.1%}  {calls[name] / steps:8.1f} calls  {name}"
        )


if __name__ == "__main__":
    main()
