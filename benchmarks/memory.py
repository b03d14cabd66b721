"""Peak memory of one training step of BERT-base x GPT-2 against transformers' own class, a process for each.

    python benchmarks/memory.py --rows 8

Random weights, 512 source and 128 target tokens, fused AdamW. The peak is the process's resident size; beside it stands
what the step adds to weights, gradients and optimizer, which both have alike.
"""

import argparse
import resource
import subprocess
import sys
from typing import Any

import torch
import transformers
from transformers import BertConfig, GPT2Config

import warmstart

SOURCE, TARGET, END = 512, 128, 50256
LIBRARIES: dict[str, Any] = {"transformers": transformers, "warmstart": warmstart}


def step(name: str, rows: int, dtype: str) -> None:
    """One step of one library; prints the bytes of the peak and of weights, gradients and optimizer."""
    library = LIBRARIES[name]
    ids = {"decoder_start_token_id": END, "eos_token_id": END, "pad_token_id": END}
    halves = BertConfig(), GPT2Config(add_cross_attention=True, is_decoder=True)
    torch.manual_seed(0)
    model = library.EncoderDecoderModel(library.EncoderDecoderConfig.from_encoder_decoder_configs(*halves, **ids))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    source, labels = torch.randint(1000, 30000, (rows, SOURCE)), torch.randint(1000, 50000, (rows, TARGET))
    mask = torch.ones_like(source)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        if name == "warmstart":
            total, _, tokens = model.training_loss(source, mask, labels)
            loss = total / tokens
        else:
            loss = model(input_ids=source, attention_mask=mask, labels=labels).loss
    loss.backward()
    optimizer.step()
    kept = sum(p.numel() * p.element_size() * (4 if p.grad is not None else 1) for p in model.parameters())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, kept)


def main() -> None:
    """Print both peaks and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 (autocast) or float32")
    parser.add_argument("--only", choices=LIBRARIES)
    chosen = parser.parse_args()
    if chosen.only:
        step(chosen.only, chosen.rows, chosen.dtype)
        return
    peaks, added = {}, {}
    for name in LIBRARIES:
        command = [sys.executable, *sys.argv, "--only", name]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks[name], added[name] = int(said[-2]), int(said[-2]) - int(said[-1])
    print(f"{chosen.rows} rows of {SOURCE} and {TARGET} tokens, {chosen.dtype}:")
    for name in LIBRARIES:
        print(f"{name:12} peak {peaks[name] / 1e9:.2f} GB, beside weights, gradients, AdamW {added[name] / 1e9:.2f} GB")
    print(f"ratio {peaks['warmstart'] / peaks['transformers']:.2f}, of what the step adds ", end="")
    print(f"{added['warmstart'] / added['transformers']:.2f}")


if __name__ == "__main__":
    main()
