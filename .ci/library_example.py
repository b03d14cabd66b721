"""Run the README's library example offline, with tiny checkpoints in folders that are named like its hub ids.

    python .ci/library_example.py README.md

Run it in an empty folder: transformers looks for a local folder before it asks the hub.
"""

import re
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from warmstart.data.tokenization.train import Family, train_tokenizer

TEXTS = ["A storm closed the harbour, and the ferries stayed in port.", "A long article about a storm."]


def main() -> None:
    example = re.search(r"^## As a library\n+```python\n(.*?)```", Path(sys.argv[1]).read_text(), re.DOTALL | re.M)
    assert example, "the README has no library example"
    encoder, decoder = re.findall(r'"([\w.-]+/[\w.-]+)"', example[1])
    torch.manual_seed(0)
    of_encoder, of_decoder = (train_tokenizer(family, TEXTS, 320) for family in (Family.wordpiece, Family.gpt2))
    of_encoder.save_pretrained(encoder)
    of_decoder.save_pretrained(decoder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(of_encoder), initializer_range=0.5, **sizes)).save_pretrained(encoder)
    # Untied: a random tied model repeats its last token, and a broken cache would not show.
    layers = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "tie_word_embeddings": False}
    end = {"bos_token_id": of_decoder.eos_token_id, "eos_token_id": of_decoder.eos_token_id}
    config = GPT2Config(vocab_size=len(of_decoder), initializer_range=0.5, **layers, **end)
    GPT2LMHeadModel(config).save_pretrained(decoder)

    names: dict = {}
    exec(example[1], names)
    model = names["model"].eval()
    ids = torch.randint(5, len(of_encoder), (3, 9))
    for beams in (1, 3):
        search = {"num_beams": beams, "min_new_tokens": 8, "max_new_tokens": 8}
        with_cache, without = (model.generate(ids, use_cache=cache, **search) for cache in (True, False))
        assert torch.equal(with_cache, without), f"{beams} beams: {with_cache} with a cache, {without} without"
    assert any(parameter.grad is not None for parameter in model.parameters()), "the example trains nothing"
    print("library example: trained a step, generated, the same ids with a cache and without")


if __name__ == "__main__":
    main()
