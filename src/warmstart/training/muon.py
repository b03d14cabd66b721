"""Muon for new matrices, and AdamW for all other parameters, as one optimizer (``optim.new_optimizer=muon``).

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) moves a matrix along the orthogonalized average of
its gradients. The step is scaled as by Liu et al. (2025, arXiv:2502.16982), so that the learning rates of AdamW fit.
"""

from collections.abc import Callable
from typing import Any

import torch

from warmstart.errors import UserError

MUON = "new_muon"
"""Name of the group of parameters that Muon optimizes."""


class AdamWAndMuon(torch.optim.AdamW):
    """AdamW whose group ``new_muon`` is optimized by Muon.

    Args:
        groups: Parameter groups of AdamW, one of them named ``MUON``.
        betas: Decay rates of AdamW.
        fused: Whether one kernel updates all parameters of AdamW.

    Raises:
        UserError: torch is too old for Muon.
    """

    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float], fused: bool) -> None:
        """Give AdamW all groups, so that there is one state, one schedule and one list of groups."""
        if not hasattr(torch.optim, "Muon"):
            raise UserError(
                f"optim.new_optimizer=muon needs torch 2.9 or newer, but {torch.__version__} is installed. Upgrade it, "
                "or set optim.new_optimizer=adamw."
            )
        super().__init__(groups, betas=betas, fused=fused)
        ours = [group for group in self.param_groups if group["name"] == MUON]
        for group in ours:
            group["fused"] = False  # so that a step with a non-finite gradient is skipped without AdamW's flag
        self._muon = torch.optim.Muon(ours, adjust_lr_fn="match_rms_adamw")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state as every optimizer does: Adam's own method expects a step count, which Muon has not."""
        torch.optim.Optimizer.__setstate__(self, state)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of both optimizers.

        Args:
            closure: Computes the loss and its gradients. It sees the groups of both.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if group["name"] != MUON]
            super().step()
        finally:
            self.param_groups = groups
        self._muon.param_groups = [group for group in groups if group["name"] == MUON]
        self._muon.state = self.state
        self._muon.step()
        return loss
