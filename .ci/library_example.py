"""Run the README's library example offline, on tiny checkpoints in folders of the names that it gives.

    python .ci/library_example.py README.md

Run it in an empty folder: transformers looks for a folder of a name before it asks the hub.
"""

import re
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel


def main() -> None:
    example = re.search(r"^## As a library\n+```python\n(.*?)```", Path(sys.argv[1]).read_text(), re.DOTALL | re.M)
    assert example, "the README has no library example"
    encoder, decoder = re.findall(r'"([\w.-]+/[\w.-]+)"', example[1])
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "initializer_range": 0.5, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **sizes)
    ).save_pretrained(encoder)
    # Untied: a random tied model writes its last token again and again, with a cache or without.
    layers = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "tie_word_embeddings": False}
    GPT2LMHeadModel(GPT2Config(**layers, **sizes)).save_pretrained(decoder)

    names: dict = {}
    exec(example[1], names)
    model = names["model"]
    model.config.decoder_start_token_id = 1
    ids = torch.randint(3, 64, (3, 9))
    for beams in (1, 3):
        search = {"num_beams": beams, "min_new_tokens": 8, "max_new_tokens": 8}
        with_cache, without = (model.generate(ids, use_cache=cache, **search) for cache in (True, False))
        assert torch.equal(with_cache, without), f"{beams} beams: {with_cache} with a cache, {without} without"
    loss = model(input_ids=ids, labels=torch.randint(3, 64, (3, 5))).loss
    loss.backward()
    print(f"library example: loss {loss.item():.2f}, the same ids with a cache and without")


if __name__ == "__main__":
    main()
