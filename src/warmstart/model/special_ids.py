"""The decoder's start, end and pad ids: one truth for training and generation.

transformers keeps them twice, in ``config`` (training shifts the labels by it) and in ``generation_config``
(``generate`` begins with it), and lets the two drift apart. Here ``config`` wins wherever it says something.
"""

from typing import Any

SPECIAL_IDS = ("decoder_start_token_id", "eos_token_id", "pad_token_id")


def sync_special_ids(config: Any, generation_config: Any) -> None:
    """Copy what ``config`` says into ``generation_config``, in place."""
    for name in SPECIAL_IDS:
        value = getattr(config, name, None)
        if value is not None:
            setattr(generation_config, name, value)
