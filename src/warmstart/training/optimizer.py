"""AdamW with one rate for each part: encoder, decoder, and what no checkpoint gave."""

from typing import Any

import torch

from warmstart.training.settings import OptimSettings


def parameter_groups(model: Any, optim: OptimSettings) -> list[dict[str, Any]]:
    """Trainable parameters by part (``encoder``, ``decoder``, ``new``) and by whether weight decay applies.

    Vectors (biases, norms) have no decay. A parameter that the halves share stands once, in the first half that has it.
    """
    rates = {"encoder": optim.encoder_rate, "decoder": optim.decoder_rate, "new": optim.new_rate}
    new = model.new_parameter_names()
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "new" if name in new else name.partition(".")[0]
            groups.setdefault((part, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rates[part],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "name": f"{part}{'' if decays else '_no_decay'}",
        }
        for (part, decays), parameters in groups.items()
    ]


def build_optimizer(model: Any, optim: OptimSettings) -> torch.optim.AdamW:
    """Fused AdamW over :func:`parameter_groups`."""
    return torch.optim.AdamW(parameter_groups(model, optim), betas=(optim.betas[0], optim.betas[1]), fused=True)
