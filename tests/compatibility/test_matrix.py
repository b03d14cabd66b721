"""22 decoder types and 18 encoder types of the compatibility matrix pass every check."""

import pytest
import torch
import transformers
from huggingface_hub import constants

from warmstart.compatibility.matrix import Cell, offline_and_quiet, try_cell

DECODERS = [
    *("llama", "qwen3", "gemma3_text", "gpt_neox", "opt", "gpt_neo", "olmo2", "mistral", "phi3", "bloom", "falcon"),
    *("mamba", "bamba", "recurrent_gemma", "openai-gpt", "xlm", "big_bird", "deepseek_v3", "gemma3n_text", "gpt2"),
    *("falcon_h1", "minimax"),
]
ENCODERS = [
    *("bert", "roberta", "distilbert", "electra", "albert", "deberta-v2", "modernbert", "longformer", "big_bird"),
    *("mpnet", "t5", "bart", "pegasus", "xlm-roberta", "roformer", "led", "t5gemma"),
    "switch_transformers",
]


@pytest.mark.parametrize("kind", DECODERS)
def test_decoder(kind):
    cell = Cell(**try_cell({"side": "decoder", "kind": kind, "other": "bert"}))
    assert cell.clean, cell


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder(kind):
    cell = Cell(**try_cell({"side": "encoder", "kind": kind, "other": "llama"}))
    assert cell.clean, cell


def test_a_worker_is_offline_even_if_transformers_was_imported_before(monkeypatch, recwarn):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    verbosity, threads = transformers.logging.get_verbosity(), torch.get_num_threads()
    try:
        offline_and_quiet()
    finally:
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()
        torch.set_num_threads(threads)
    assert constants.is_offline_mode()
