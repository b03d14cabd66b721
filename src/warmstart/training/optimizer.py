"""AdamW with one rate for each part: encoder, decoder, what no checkpoint gave, and the gates of that."""

from typing import Any

import torch

from warmstart.config.training import OptimSettings
from warmstart.errors import UserError

FUSED_DEVICES = ("cpu", "cuda")
NEW = "new"
GATE = "new_gate"


def parameter_groups(model: Any, optim: OptimSettings) -> list[dict[str, Any]]:
    """Trainable parameters by part (``encoder``, ``decoder``, ``new``, ``new_gate``) and by whether they decay.

    Vectors (biases, norms, gates) have none. A parameter that the halves share stands once, in the first half with it.

    Raises:
        UserError: nothing trains.
    """
    rates = {"encoder": optim.encoder_rate, "decoder": optim.decoder_rate, NEW: optim.new_rate, GATE: optim.gate_rate}
    new = model.new_parameter_names()
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            half = name.partition(".")[0]
            part = half if half in ("encoder", "decoder") and name not in new else NEW
            if name.startswith("cross_attention.") and name.endswith(".gate"):
                part = GATE
            groups.setdefault((part, parameter.dim() > 1), []).append(parameter)
    if not groups:
        raise UserError(
            "Every parameter is frozen, so there is nothing to train: the decoder brings cross-attention of its own. "
            "Set bridge.freeze to none, encoder or decoder."
        )
    return [
        {
            "params": parameters,
            "lr": rates[part],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "name": part if decays or part == GATE else f"{part}_no_decay",
        }
        for (part, decays), parameters in groups.items()
    ]


def build_optimizer(model: Any, optim: OptimSettings, *, fused: bool | None = None) -> torch.optim.AdamW:
    """AdamW over :func:`parameter_groups`, fused (one kernel for all parameters) wherever the device has that.

    ``fused=False`` is for gradients under a loss scale: a fused step unscales by itself, too late for clipping.
    """
    groups = parameter_groups(model, optim)
    if fused is None:
        fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for g in groups for p in g["params"])
    optimizer = torch.optim.AdamW(groups, betas=(optim.betas[0], optim.betas[1]), fused=fused)
    optimizer.register_load_state_dict_pre_hook(_moments_alone)
    return optimizer


def _moments_alone(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Of a checkpoint, what the fit has learnt; rates, decay, betas and whether it is fused are as they are asked now.

    Raises:
        UserError: other parts trained.
    """
    asked, found = (
        [group.get("name") for group in groups] for groups in (optimizer.param_groups, state["param_groups"])
    )
    if asked != found:
        raise UserError(
            f"The fit asked for trains {', '.join(map(str, asked))}, the checkpoint {', '.join(map(str, found))}. Set "
            "bridge.* as it was, or ckpt=new to begin anew."
        )
    both = zip(optimizer.param_groups, state["param_groups"], strict=True)
    return state | {"param_groups": [own | {"params": saved["params"]} for own, saved in both]}
