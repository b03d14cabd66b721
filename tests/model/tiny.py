"""Small configs, batches, and the two implementations that the tests compare.

Weights are initialized with a large standard deviation (0.3), so that a wrong mask or position changes logits clearly.
"""

from typing import Any, NamedTuple

import pytest
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

import warmstart


class Implementation(NamedTuple):
    model: Any
    config: Any

    def join(self, encoder: PreTrainedConfig, decoder: PreTrainedConfig, **ids: int) -> PreTrainedModel:
        """Build an untrained model in the way that both libraries document, in evaluation mode."""
        config = self.config.from_encoder_decoder_configs(encoder, decoder, **(IDS | ids))
        return self.model(config).eval()


OURS = Implementation(warmstart.EncoderDecoderModel, warmstart.EncoderDecoderConfig)
UPSTREAM = Implementation(transformers.EncoderDecoderModel, transformers.EncoderDecoderConfig)

# Start, end and pad ids differ from each other and from all ids that `source` and `target` draw.
IDS = {"decoder_start_token_id": 4, "eos_token_id": 2, "pad_token_id": 1}
SOURCE_VOCABULARY, TARGET_VOCABULARY = 50, 60

_BERT = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}
_GPT2 = {"n_layer": 2, "n_head": 4, "n_positions": 40, "initializer_range": 0.3, "bos_token_id": 4, "eos_token_id": 2}
_DISTILBERT = {"n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40, "initializer_range": 0.3}
_ALBERT = {"embedding_size": 16}
_MODERNBERT = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "global_attn_every_n_layers": 2,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}
_NO_IDS = {"bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None}


def small_config(kind: str, width: int = 32, vocab_size: int = SOURCE_VOCABULARY, **values: Any) -> PreTrainedConfig:
    """Return a config of the type ``kind`` with two layers and pad id 1."""
    if kind == "gpt2":
        known = _GPT2 | {"n_embd": width}
    elif kind == "distilbert":
        known = _DISTILBERT | {"dim": width}
    elif kind == "albert":
        known = _BERT | _ALBERT | {"hidden_size": width}
    elif kind == "modernbert":
        known = _MODERNBERT | _NO_IDS | {"hidden_size": width}
    else:
        known = _BERT | {"hidden_size": width}
    if kind == "electra":
        known["embedding_size"] = width
    return transformers.AutoConfig.for_model(kind, **({"vocab_size": vocab_size, "pad_token_id": 1} | known | values))


def small_decoder_config(kind: str, width: int = 32, **values: Any) -> PreTrainedConfig:
    """Return such a config for a decoder, with the target's vocabulary size."""
    return small_config(
        kind, width, **({"vocab_size": TARGET_VOCABULARY, "is_decoder": True, "add_cross_attention": True} | values)
    )


def source(batch_size: int = 3, length: int = 9, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return source ids and their mask; the second example is padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(5, SOURCE_VOCABULARY, (batch_size, length), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    if batch_size > 1:
        attention_mask[1, length - 4 :] = 0
    return {"input_ids": input_ids.masked_fill(attention_mask == 0, 1), "attention_mask": attention_mask}


def target(batch_size: int = 3, length: int = 6, seed: int = 2) -> torch.Tensor:
    """Return labels; those of the last example are shorter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, TARGET_VOCABULARY, (batch_size, length), generator=generator)
    if batch_size > 1:
        labels[-1, length - 2 :] = -100
    return labels


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest difference between two tensors."""
    return float((a - b).detach().abs().max())


def upstream_fails(*raises: type[BaseException]) -> pytest.MarkDecorator:
    """Run the test with our class, and with upstream's class, where it must fail with one of ``raises``."""
    mark = pytest.mark.xfail(strict=True, raises=raises or AssertionError)
    return pytest.mark.parametrize(
        "lib", [pytest.param(OURS, id="ours"), pytest.param(UPSTREAM, id="upstream", marks=mark)]
    )
