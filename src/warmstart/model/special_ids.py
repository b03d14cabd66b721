"""Find the decoder's start, end and pad ids in its checkpoint: in its tokenizer, or in its config without one.

The choice among a tokenizer's tokens is that of ``TokenizerPair``, so a loop of your own and a run use the same ids.
"""

from typing import Any

_HUB = ("revision", "cache_dir", "local_files_only", "token")
# The token of the decoder's tokenizer that each id usually is, for the message about an unknown id.
_USUAL = {"decoder_start_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "pad_token_id"}


def known_special_ids(path: str | None, config: Any, hub: dict[str, Any]) -> dict[str, int]:
    """Return the special ids of a decoder, as far as they are known.

    Args:
        path: Hub id or folder of the decoder, where its tokenizer is looked for; None to read only the config.
        config: The decoder's config. ``decoder_start_token_id``, which sequence-to-sequence checkpoints have, takes
            precedence over the tokenizer's start token.
        hub: Arguments of ``from_pretrained``, of which those about the hub are used.

    Returns:
        ``decoder_start_token_id``, ``eos_token_id`` and ``pad_token_id``, without those that are unknown.
    """
    tokenizer = None if path is None else _tokenizer(path, {name: hub[name] for name in _HUB if name in hub})
    known = config if tokenizer is None else tokenizer

    def first(holder: Any, *names: str) -> int | None:
        for name in names:
            value = getattr(holder, f"{name}_token_id", None)
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, int) and 0 <= value < config.vocab_size:
                return value
        return None

    # A separator ends a text where there is no end token, as in BERT, and the end token starts one, as in GPT-2.
    end = first(known, "eos", "sep")
    start = first(config, "decoder_start")
    start, pad = (first(known, "bos", "cls") if start is None else start), first(known, "pad")
    start, pad = (end if value is None else value for value in (start, pad))
    found = {"decoder_start_token_id": start, "eos_token_id": end, "pad_token_id": pad}
    return {name: value for name, value in found.items() if value is not None}


def special_id(name: str, config: Any, generation_config: Any) -> int:
    """Return a special id; ``config`` takes precedence.

    Args:
        name: ``decoder_start_token_id``, ``eos_token_id`` or ``pad_token_id``.
        config: The joint config.
        generation_config: The model's generation config.

    Raises:
        ValueError: Neither has it; the message shows how to set it.
    """
    for holder in (config, generation_config):
        value = getattr(holder, name)
        if value is not None:
            return int(value[0]) if isinstance(value, list) else int(value)
    raise ValueError(
        f"{name} was needed, but it is not set: neither a tokenizer nor the config of the decoder's checkpoint names "
        f"it. Set it: model.config.{name} = decoder_tokenizer.{_USUAL[name]}"
    )


def _tokenizer(path: str, hub: dict[str, Any]) -> Any:
    """Return the tokenizer of a checkpoint; None for a checkpoint without one, or one without a vocabulary."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **hub)
        # transformers makes an empty tokenizer of the config's type if the folder has no vocabulary.
        return tokenizer if len(tokenizer) > len(set(tokenizer.all_special_ids)) else None
    except BaseException as error:  # the loaders raise dozens of types; the weights can be used without a tokenizer
        of_the_library = isinstance(error, Exception) or type(error).__name__ == "PanicException"
        if not of_the_library or isinstance(error, MemoryError):
            raise
        return None
