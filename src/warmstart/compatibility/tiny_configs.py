"""Make a tiny configuration of any model type, for checks of what it computes: no dropout and a large init range.

tiny_config("llama")
"""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)

from warmstart.model.decoders import text_part
from warmstart.model.tiny_sizes import tiny_sizes

VOCABULARY = 96
START, END, PAD = 1, 2, 0

_POSITIONS = (
    *("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length", "model_max_length"),
    *("max_target_positions", "original_max_position_embeddings"),
    *("max_encoder_position_embeddings", "max_decoder_position_embeddings"),
)
_IDS = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": PAD, "decoder_start_token_id": START}
# What the code of single types also needs
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "esm": {"vocab_size": VOCABULARY},
    "omniasr": {"initializer_range": 0.02},  # it must be that of audio_config
}


def decoder_types() -> list[str]:
    """Return every type that transformers lists as a causal language model."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def encoder_types() -> list[str]:
    """Return every type that transformers lists as a masked, text-encoding or sequence-to-sequence model."""
    names = [
        *MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
        *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    ]
    return list(dict.fromkeys(name for name in names if name in CONFIG_MAPPING))


def tiny_config(kind: str) -> PreTrainedConfig:
    """Return a config with a few layers, hidden size 32, 96 tokens, no dropout and a large init range."""
    default = text_part(AutoConfig.for_model(kind))
    changes = tiny_sizes(default, VOCABULARY)
    parts = {
        name: _for_checks(part) | changes[name]
        for name in changes
        if isinstance(part := getattr(default, name, None), PreTrainedConfig)
    }
    return type(default)(**(_for_checks(default) | changes | parts | EXCEPTIONS.get(default.model_type, {})))


def _for_checks(default: PreTrainedConfig) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in default.to_dict().items():
        if name.startswith("_"):
            continue
        if name.startswith("forced_"):
            changes[name] = None
        elif name in _IDS or name.endswith("_token_id"):
            changes[name] = _IDS.get(name, 3) if name in _IDS or value is not None else None
        elif name in ("initializer_range", "init_std", "initializer_std"):
            changes[name] = 0.3
        elif "drop" in name and isinstance(value, float):
            changes[name] = 0.0
        elif name in _POSITIONS and isinstance(value, int | float):
            changes[name] = 64
    return changes
