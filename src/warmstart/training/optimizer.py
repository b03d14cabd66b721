"""The optimizer, with one learning rate each for encoder, decoder, new parameters and the gates of grafted layers."""

from typing import Any

import torch

from warmstart.config.training import NewOptimizer, OptimSettings
from warmstart.errors import UserError
from warmstart.model.parameters import hidden_matrices
from warmstart.training.muon import MUON, AdamWAndMuon

FUSED_DEVICES = ("cpu", "cuda")
NEW = "new"
GATE = "new_gate"


def parameter_groups(model: Any, optim: OptimSettings) -> list[dict[str, Any]]:
    """Group the trainable parameters.

    There are up to four learning rates: for ``encoder``, ``decoder``, ``new`` (parameters that no checkpoint has) and
    ``new_gate``. Vectors (biases, norms, gates) are in separate groups, because they have no weight decay. A parameter
    that encoder and decoder share belongs to the encoder. With ``optim.new_optimizer=muon`` the new matrices that Muon
    can optimize are the group ``new_muon``.

    Args:
        model: an ``EncoderDecoderModel``.
        optim: learning rates and weight decay.

    Returns:
        Groups as ``torch.optim`` takes them, each with a ``name``.

    Raises:
        UserError: every parameter is frozen, or Muon was requested and no matrix is new.
    """
    learning_rates = {
        "encoder": optim.encoder_rate,
        "decoder": optim.decoder_rate,
        NEW: optim.new_rate,
        GATE: optim.gate_rate,
        MUON: optim.new_rate,
    }
    of_muon = hidden_matrices(model) if optim.new_optimizer is NewOptimizer.muon else set()
    new = model.new_parameter_names()
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            submodel = name.partition(".")[0]
            part = submodel if submodel in ("encoder", "decoder") and name not in new else NEW
            if name.startswith("cross_attention.") and name.endswith(".gate"):
                part = GATE
            if part == NEW and name in of_muon:
                part = MUON
            groups.setdefault((part, parameter.dim() > 1), []).append(parameter)
    if not groups:
        raise UserError(
            "Every parameter is frozen, so there is nothing to train: the decoder's checkpoint already has "
            "cross-attention, so no parameter is new. Set bridge.freeze to none, encoder or decoder."
        )
    if optim.new_optimizer is NewOptimizer.muon and (MUON, True) not in groups:
        raise UserError(
            "optim.new_optimizer=muon was requested, but no matrix of this pair is new: the decoder's checkpoint has "
            "cross-attention. Set optim.new_optimizer=adamw."
        )
    return [
        {
            "params": parameters,
            "lr": learning_rates[part],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "name": part if decays or part == GATE else f"{part}_no_decay",
        }
        for (part, decays), parameters in groups.items()
    ]


def build_optimizer(model: Any, optim: OptimSettings, *, fused: bool | None = None) -> torch.optim.AdamW:
    """Build AdamW, or AdamW and Muon, for the groups of ``parameter_groups``.

    Args:
        model: an ``EncoderDecoderModel``.
        optim: learning rates, weight decay and betas.
        fused: whether one kernel updates all parameters; None means if the device supports it. Pass False if gradients
            have a loss scale: a fused step unscales them itself, which is too late for clipping.

    Raises:
        UserError: every parameter is frozen, or Muon was requested and cannot be had.
    """
    groups = parameter_groups(model, optim)
    if fused is None:
        fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for g in groups for p in g["params"])
    kind = AdamWAndMuon if optim.new_optimizer is NewOptimizer.muon else torch.optim.AdamW
    optimizer = kind(groups, betas=(optim.betas[0], optim.betas[1]), fused=fused)
    optimizer.register_load_state_dict_pre_hook(_keep_current_options)
    return optimizer


def _keep_current_options(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Restore only the optimizer state from a checkpoint.

    Learning rates, weight decay, betas and ``fused`` come from the current config.

    Raises:
        UserError: the checkpoint has other parameter groups.
    """
    configured, found = (
        [group.get("name") for group in groups] for groups in (optimizer.param_groups, state["param_groups"])
    )
    if configured != found:
        raise UserError(
            f"This config trains {', '.join(map(str, configured))}, but the checkpoint trained "
            f"{', '.join(map(str, found))}. Set bridge.* and optim.new_optimizer as they were, or ckpt=new to start "
            "over."
        )
    both = zip(optimizer.param_groups, state["param_groups"], strict=True)
    return state | {"param_groups": [current | {"params": saved["params"]} for current, saved in both]}
