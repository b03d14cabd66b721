"""Compare the predictions of task=check with a real step, at three sizes.

    python benchmarks/scale.py
    python benchmarks/scale.py --sizes tiny minilm --rows 2

It compares FLOPs, bytes saved for the backward pass, bytes of gradients in DDP's all-reduce, and bytes of both KV
caches, with random weights on a CPU and without padding. FLOPs come from torch's FlopCounterMode, with unfused
attention, because the backward pass of a fused kernel recomputes scores. Bytes are those of the tensors that autograd
saves (bf16 autocast, dropout 0.1) and of the caches. Each is also measured with twice the source tokens,
target tokens and examples.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, GPT2Config, PreTrainedConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel, cpu
from warmstart.profiling.flops import training_flops
from warmstart.profiling.memory import fit_memory, generation_memory

IDS: dict[str, Any] = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TINY: dict[str, Any] = {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
MINILM: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
# Encoder, decoder, source tokens and target tokens.
SIZES: dict[str, tuple[PreTrainedConfig, PreTrainedConfig, int, int]] = {
    "tiny": (BertConfig(**TINY, intermediate_size=256), GPT2Config(**TINY), 64, 16),
    "minilm": (BertConfig(**MINILM), BertConfig(**MINILM), 256, 64),
    "base": (BertConfig(), GPT2Config(), 256, 64),
}
VARIANTS = {"": (1, 1, 1), "2 x source": (2, 1, 1), "2 x target": (1, 2, 1), "2 x examples": (1, 1, 2)}


def batch(rows: int, source: int, target: int) -> dict[str, Tensor]:
    """Return a batch of random ids that exist in every vocabulary used here."""
    ids, labels = torch.randint(3, 1000, (rows, source)), torch.randint(3, 1000, (rows, target))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def flops(model: Any, given: dict[str, Tensor]) -> int:
    """Measure the FLOPs of forward and backward."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.training_loss(**given)[0].backward()
    model.zero_grad()
    return int(counter.get_total_flops())


def kept_bytes(model: Any, given: dict[str, Tensor]) -> int:
    """Measure the bytes that autograd saves, including logits and without parameters."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept.setdefault(storage.data_ptr(), tensor)
        return tensor

    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.training_loss(**given)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def summed_bytes(model: Any, given: dict[str, Tensor]) -> int:
    """Measure the bytes of gradients that DDP passes to its all-reduce in one step."""
    seen: list[int] = []

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, given: dict[str, Tensor]) -> Tensor:
            loss: Tensor = model.training_loss(**given)[0]
            return loss

    def hook(state: None, bucket: Any) -> torch.futures.Future[Tensor]:
        seen.append(bucket.buffer().nbytes)
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    parallel = DistributedDataParallel(Step())
    parallel.register_comm_hook(None, hook)
    parallel(given).backward()
    model.zero_grad()
    return sum(seen)


def cache_bytes(model: Any, given: dict[str, Tensor], beams: int, new: int) -> tuple[int, int]:
    """Measure the bytes of the cross-attention cache and of the self-attention cache after the last token."""
    model.generation_config.eos_token_id = None
    written = model.generate(
        given["input_ids"],
        attention_mask=given["attention_mask"],
        num_beams=beams,
        max_new_tokens=new,
        min_new_tokens=new,
        return_dict_in_generate=True,
    )
    caches = written.past_key_values.cross_attention_cache, written.past_key_values.self_attention_cache
    cross, own = (sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) for cache in caches)
    return cross, own


@contextmanager
def attention(model: Any, name: str) -> Iterator[None]:
    """Use another implementation of attention in this block."""
    before = model.encoder.config._attn_implementation
    for submodel in (model.encoder, model.decoder):
        submodel.set_attn_implementation(name)
    yield
    for submodel in (model.encoder, model.decoder):
        submodel.config._attn_implementation = before


def main() -> None:
    """Print predictions, measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rows", type=int, default=2)
    chosen = parser.parse_args()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GLOO_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    print(f"{'':32}{'predicted':>12}{'measured':>12}  ratio")

    def line(what: str, predicted: float, measured: float) -> None:
        print(f"{what:32}{predicted:12.4g}{measured:12.4g}  {predicted / measured:.3f}", flush=True)

    for size in chosen.sizes:
        encoder, decoder, source, target = SIZES[size]
        model: Any = EncoderDecoderModel(EncoderDecoderConfig(encoder=encoder, decoder=decoder, **IDS)).train()
        cpu.accelerate(model)
        model.training_loss(**batch(1, 2, 2))  # the first call also tests the LM head
        for name, (more_source, more_target, more_rows) in VARIANTS.items():
            shape = chosen.rows * more_rows, source * more_source, target * more_target
            given = batch(*shape)
            with attention(model, "eager"):
                line(f"{size} FLOPs {name}", shape[0] * training_flops(model, *shape[1:]), flops(model, given))
            memory = fit_memory(model, *shape, precision="bf16-mixed")
            logits = 2 * shape[0] * shape[2] * decoder.vocab_size  # their gradient in bf16
            predicted = memory["activations"] + memory["their 16-bit copies"] + logits
            line(f"{size} saved bytes {name}", predicted, kept_bytes(model, given))
        gradients = fit_memory(model, 1, 1, 1, precision="bf16-mixed")["gradients"]
        line(f"{size} gradients summed", gradients, summed_bytes(model, batch(1, 8, 8)))
        model.eval()
        for beams in (1, 4):
            memory = generation_memory(model, chosen.rows, beams, source, target, itemsize=4)
            cross, own = cache_bytes(model, batch(chosen.rows, source, target), beams, target)
            line(f"{size} cross cache, {beams} beams", memory["cross-attention cache"], cross)
            line(f"{size} self cache, {beams} beams", memory["self-attention cache"], own)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
