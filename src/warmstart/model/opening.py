"""Whether transformers' own class opens a pair and computes what ours does: what a model card has to say."""

from typing import Any

import torch
import transformers

# transformers' class leaves their global attention to the caller, without which they compute something else.
_GLOBAL_ATTENTION = ("longformer", "led")


def opens_in_transformers(model: Any) -> bool:
    """Whether ``transformers.EncoderDecoderModel`` has a place for every weight of ``model``, adapters merged.

    No weight is copied: its class is built without storage, from the config that ``save_pretrained`` writes.
    """
    if model.config.graft is not None or model.config.encoder.model_type in _GLOBAL_ATTENTION:
        return False
    try:
        with torch.device("meta"):
            config = transformers.EncoderDecoderConfig.from_dict(model.config.to_dict())
            theirs = transformers.EncoderDecoderModel(config).state_dict()
    except Exception:  # noqa: BLE001 - whatever it raises, it does not open
        return False
    ours = {name: value.shape for name, value in model.state_dict().items()}
    # A pooler that is not in the checkpoint is built anew there, and nothing reads it.
    needed = {name: value.shape for name, value in theirs.items() if not name.startswith("encoder.pooler.")}
    return ours == needed
