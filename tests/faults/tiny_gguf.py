"""A GGUF file of a tiny decoder with a byte-level tokenizer."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from transformers.convert_slow_tokenizer import bytes_to_unicode

SIZE, LAYERS = 32, 2


def write_tiny_gguf(path: Path) -> None:
    """Write a two-layer Llama with random weights, the same each time."""
    tokens = ["<|endoftext|>", *bytes_to_unicode().values(), "th"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * SIZE)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(SIZE // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))  # one control token, the others are text
    writer.add_token_merges(["t h"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(0)
    random = np.random.default_rng(0)
    squares = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (SIZE, SIZE))
    wide = {"ffn_gate": (2 * SIZE, SIZE), "ffn_up": (2 * SIZE, SIZE), "ffn_down": (SIZE, 2 * SIZE)}
    shapes = {"token_embd": (len(tokens), SIZE)}
    shapes |= {f"blk.{i}.{name}": shape for i in range(LAYERS) for name, shape in (squares | wide).items()}
    norms = ["output_norm", *(f"blk.{i}.{name}" for i in range(LAYERS) for name in ("attn_norm", "ffn_norm"))]
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (0.05 * random.standard_normal(shape)).astype(np.float32))
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(SIZE, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
