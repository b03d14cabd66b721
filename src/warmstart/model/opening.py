"""Find out whether transformers' own class can load a model, for its model card."""

from typing import Any

import torch
import transformers

from warmstart.config.model import NO_ENCODER

# transformers' class leaves global attention to the caller, and computes something else without it. It always has an
# encoder.
_NEVER = ("longformer", "led", NO_ENCODER)


def opens_in_transformers(model: Any) -> bool:
    """Return whether ``transformers.EncoderDecoderModel`` has exactly the parameters of ``model``.

    transformers' class is built on the meta device, from the config that ``save_pretrained`` writes.

    Args:
        model: A joint model with merged adapters.
    """
    own = model.config
    if own.graft is not None or own.prompt_ids or own.encoder.model_type in _NEVER:
        return False
    try:
        with torch.device("meta"):
            config = transformers.EncoderDecoderConfig.from_dict(own.to_dict())
            theirs = transformers.EncoderDecoderModel(config).state_dict()
    except Exception:  # noqa: BLE001 - any error means that it cannot load the model
        return False
    ours = {name: value.shape for name, value in model.state_dict().items()}
    # transformers initializes a pooler that the checkpoint does not contain, and nothing uses it.
    needed = {name: value.shape for name, value in theirs.items() if not name.startswith("encoder.pooler.")}
    return ours == needed
