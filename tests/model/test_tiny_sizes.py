"""``scale=tiny`` makes a model of any type that computes."""

import pytest
import torch

from warmstart.config.model import Scale, SubmodelSettings, Weights
from warmstart.model.decoders import decoder_class
from warmstart.model.submodel_config import submodel_config
from warmstart.model.tiny_sizes import tiny_sizes


# Sizes that depend on each other, lists with an element per layer, experts, and language models in multimodal ones
@pytest.mark.parametrize(
    "kind",
    [
        *(
            "codegen",
            "cwm",
            "dbrx",
            "deepseek_v3",
            "emu3",
            "falcon",
            "gemma4_text",
            "gptj",
            "granitemoehybrid",
            "jamba",
        ),
        *("lfm2_moe", "longcat_flash", "mamba2", "mllama", "qwen3_5", "qwen3_moe", "qwen3_next"),
        *("recurrent_gemma", "xlstm", "xmod", "zamba2"),
    ],
)
def test_a_tiny_decoder_of_any_type_computes(kind):
    torch.manual_seed(0)
    settings = SubmodelSettings(kind, "a/b", kind, weights=Weights.random, scale=Scale.tiny)
    config = submodel_config(settings, "decoder", 96, 0)
    model = decoder_class(config)(config).eval()
    assert sum(one.numel() for one in model.parameters()) < 3_000_000
    assert model(torch.randint(5, 96, (2, 12))).logits.isfinite().all()


def test_architecture_that_is_no_size_is_kept():
    settings = SubmodelSettings(
        "t5", "a/b", "t5", weights=Weights.random, scale=Scale.tiny, architecture={"feed_forward_proj": "gated-gelu"}
    )
    config = submodel_config(settings, "encoder", 96, 0)
    assert (config.is_gated_act, config.d_model, config.vocab_size) == (True, 32, 96)


def test_lists_with_a_value_for_each_layer_are_cut():
    settings = SubmodelSettings(
        *("longformer", "a/b", "longformer"),
        weights=Weights.random,
        scale=Scale.tiny,
        architecture={"attention_window": [512] * 12},
    )
    config = submodel_config(settings, "encoder", 96, 0)
    assert (config.attention_window, config.num_hidden_layers) == ([512, 512], 2)


def test_numbers_of_positions_stay():
    settings = SubmodelSettings("gpt2", "a/b", "gpt2", weights=Weights.random, scale=Scale.tiny)
    config = submodel_config(settings, "decoder", 96, 0)
    assert (config.n_positions, config.n_embd, config.n_layer) == (1024, 32, 2)
    assert "n_positions" not in tiny_sizes(config, 96)
