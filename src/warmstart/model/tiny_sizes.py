"""Shrink the config of any model type: few layers, hidden size 32, small everything else.

    AutoConfig.for_model("llama", **tiny_sizes(AutoConfig.for_model("llama"), vocabulary=96))

Sizes are chosen by the name and value of each field; ``EXCEPTIONS`` lists what else a type needs.
"""

from typing import Any

from transformers import PreTrainedConfig

from warmstart.model.encoders import encoder_part

_VOCABULARIES = (
    *("vocab_size", "n_vocab", "decoder_vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input"),
    *("src_vocab_size", "tgt_vocab_size"),
)
_HIDDEN_SIZE = 32
_SIZES: dict[int, tuple[str, ...]] = {
    64: (
        *("rel_extent", "floor_scale"),
        *("intermediate_size", "ffn_dim", "d_ff", "dff", "dim_ff", "d_inner", "inner_dim", "hidden_dim", "n_inner"),
        *("decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size", "expert_ffn_hidden_size", "feed_forward_size"),
        *("intermediate_size_mlp", "dense_intermediate_size", "mamba_d_ssm", "attention_hidden_size"),
    ),
    _HIDDEN_SIZE: (
        *("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "embedding_dim", "embedding_size", "lru_width"),
        *("word_embed_proj_dim", "input_embedding_size", "output_embedding_size", "backbone_hidden_size"),
        *("pronunciation_embed_dim", "shape_embed_dim", "true_hidden_size", "entity_emb_size", "router_hidden_size"),
        *("moe_intermediate_size", "shared_expert_intermediate_size", "shared_experts_intermediate_size"),
        *("shared_intermediate_size", "moe_shared_expert_intermediate_size", "cross_attention_hidden_size"),
        *("kv_lora_rank", "q_lora_rank", "o_lora_rank", "laurel_rank", "adapter_rank", "mamba_dt_rank"),
        *("time_step_rank", "pronunciation_vocab_size", "shape_vocab_size", "embed_dim", "ple_embed_dim"),
    ),
    16: ("sliding_window", "sliding_window_size", "attention_window_size", "window_size", "attention_chunk_size"),
    8: (
        *("head_dim", "d_kv", "d_head", "dim_head", "attention_head_size", "v_head_dim", "qk_rope_head_dim"),
        *("qk_nope_head_dim", "index_head_dim", "swa_head_dim", "kv_channels", "rotary_dim", "linear_key_head_dim"),
        *("linear_value_head_dim", "linear_head_dim", "attention_head_dim", "mamba_d_state", "mamba_d_head"),
        *("mamba_head_dim", "mamba_headdim", "ssm_state_size", "state_size", "chunk_size", "mamba_chunk_size"),
        *("hidden_size_per_layer_input", "index_topk", "d_rel", "mamba_d_head", "gated_norm_rank", "hc_lowrank"),
        *("query_pre_attn_scalar", "patcher_size", "local_attention", "block_size", "num_buckets", "d_state"),
    ),
    4: (
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads", "encoder_attention_heads"),
        *("decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"),
        *("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "swa_num_attention_heads"),
        *("linear_num_value_heads", "linear_num_heads", "index_n_heads", "num_key_heads", "zero_expert_num"),
    ),
    2: (
        *("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "num_query_groups", "num_experts_per_tok"),
        *("num_experts_per_token", "moe_topk", "moe_k", "linear_num_key_heads", "o_groups", "altup_num_inputs"),
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks", "encoder_layers", "decoder_layers"),
        *("num_encoder_layers", "num_decoder_layers", "num_layers_per_stack", "topk_group", "n_group", "n_groups"),
        *("num_expert_group", "n_mamba_heads", "max_window_layers", "first_k_dense_replace"),
        *("num_hidden_groups",),
    ),
}
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names}
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks", "decoder_layers")
# Constraints in the code of single types, which the rule by field name does not cover.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 16,
        "is_decoder": True,
    },
    "xmod": {"default_language": "en_XX"},
    "bamba": {"mamba_n_heads": 8, "attn_layer_indices": [1]},
    "granitemoehybrid": {"mamba_n_heads": 8, "layer_types": ["mamba", "attention"]},
    "falcon_h1": {"mamba_n_heads": 8},
    "mamba2": {"num_heads": 8},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "attention_head_dim": 16,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "attention_head_dim": 16,
        "n_mamba_heads": 8,
        "num_key_value_heads": 4,
    },
    "rwkv": {"attention_hidden_size": 32},
    "esmc": {"num_key_value_heads": 4},
    "led": {"attention_window": 16},
    "mobilebert": {"embedding_size": 32, "use_bottleneck": False, "intra_bottleneck_size": 32},
    "neomme": {"head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "hrm_text": {"num_layers_per_stack": None},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "dory": {
        **{"num_hidden_layers": 3, "n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 2,
    },
}


def tiny_sizes(config: PreTrainedConfig, vocabulary: int) -> dict[str, Any]:
    """Return the fields that make the config tiny. Numbers of positions stay.

    Args:
        config: A config with the default sizes of its type.
        vocabulary: The vocabulary size.
    """
    if "hidden_size" in encoder_part(config).to_dict() and encoder_part(config) is not config:
        parts = {role: _shrunk(getattr(config, role), vocabulary) for role in ("encoder", "decoder")}
        return _shrunk(config, vocabulary) | parts
    return _shrunk(config, vocabulary) | EXCEPTIONS.get(config.model_type, {})


def _shrunk(config: PreTrainedConfig, vocabulary: int) -> dict[str, Any]:
    """Return the changed fields, by the rule only."""
    fields = {name: value for name, value in config.to_dict().items() if not name.startswith("_")}
    layers = _chosen_layers(fields)
    changes: dict[str, Any] = {}
    for name, value in fields.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _DEPTHS and isinstance(value, int):
            changes[name] = len(layers)
        elif name in ("head_dim", "num_key_value_heads"):
            # Multi-head latent attention has a key for every query head.
            changes[name] = 4 if name == "num_key_value_heads" and "kv_lora_rank" in fields else _SIZE_OF[name]
        elif is_number and name in _VOCABULARIES:
            changes[name] = vocabulary
        elif is_number and name in _SIZE_OF:
            changes[name] = _SIZE_OF[name]
        elif isinstance(value, list) and len(value) == _depth(fields) and len(value) > len(layers):
            changes[name] = [value[i] for i in layers]
    return changes


def _depth(fields: dict[str, Any]) -> int:
    return next((fields[name] for name in _DEPTHS if isinstance(fields.get(name), int)), 0)


def _chosen_layers(fields: dict[str, Any]) -> list[int]:
    """Return the first layer of each kind that the config distinguishes, in order, at least two."""
    depth, seen, chosen = _depth(fields), set(), []
    kinds = fields.get("layer_types") or fields.get("layers_block_type")
    if isinstance(kinds, list) and len(kinds) == depth:
        for i, layer in enumerate(kinds):
            if layer not in seen:
                seen.add(layer)
                chosen.append(i)
    chosen += [i for i in range(2) if i not in chosen and len(chosen) < 2]
    return sorted(chosen)
