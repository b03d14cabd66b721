"""Compare the peak memory of training BERT-base x GPT-2 with that of transformers' class, each in its own process.

    python benchmarks/memory.py --rows 8
    python benchmarks/memory.py --rows 8 --dropout 0

Random weights, 512 source and 128 target tokens, fused AdamW. There are two steps, because the optimizer state only
exists after the first. Dropout is 0.1, as in the checkpoints, or as given. The peak is the process's resident set size.
The second figure leaves out weights, gradients and optimizer state, which are equal for both.
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
from warmstart import cpu

SOURCE, TARGET, END = 512, 128, 50256
LIBRARIES: dict[str, Any] = {"transformers": transformers, "warmstart": warmstart}


def train(name: str, rows: int, dtype: str, dropout: float, steps: int) -> None:
    """Train with one library; print the bytes of the peak, and those of weights, gradients and optimizer state."""
    library = LIBRARIES[name]
    ids = {"decoder_start_token_id": END, "eos_token_id": END, "pad_token_id": END}
    encoder = BertConfig(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    gpt2: Any = GPT2Config  # its signature lacks the keywords of cross-attention
    decoder = gpt2(
        add_cross_attention=True, is_decoder=True, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout
    )
    torch.manual_seed(0)
    config = library.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **ids)
    model = library.EncoderDecoderModel(config).train()
    if name == "warmstart":  # as in task=fit
        cpu.accelerate(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    source, labels = torch.randint(1000, 30000, (rows, SOURCE)), torch.randint(1000, 50000, (rows, TARGET))
    mask = torch.ones_like(source)
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            if name == "warmstart":
                total, _, tokens = model.training_loss(source, mask, labels)
                loss = total / tokens
            else:
                loss = model(input_ids=source, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        kept = sum(p.numel() * p.element_size() * (4 if p.grad is not None else 1) for p in model.parameters())
        optimizer.zero_grad()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, kept)


def main() -> None:
    """Print both peaks and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 (autocast) or float32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", choices=LIBRARIES)
    chosen = parser.parse_args()
    if chosen.only:
        train(chosen.only, chosen.rows, chosen.dtype, chosen.dropout, chosen.steps)
        return
    peaks, added = {}, {}
    for name in LIBRARIES:
        command = [sys.executable, *sys.argv, "--only", name]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks[name], added[name] = int(output[-2]), int(output[-2]) - int(output[-1])
    print(f"{chosen.rows} examples of {SOURCE} and {TARGET} tokens, {chosen.dtype}, ", end="")
    print(f"dropout {chosen.dropout:g}, {chosen.steps} steps:")
    for name in LIBRARIES:
        print(
            f"{name:12} peak {peaks[name] / 1e9:.2f} GB, "
            f"without weights, gradients and optimizer state {added[name] / 1e9:.2f} GB"
        )
    print(f"ratio {peaks['warmstart'] / peaks['transformers']:.2f}, without state ", end="")
    print(f"{added['warmstart'] / added['transformers']:.2f}")


if __name__ == "__main__":
    main()
