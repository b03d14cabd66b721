"""What a call of ``forward`` asks for beyond logits, and warnings where it will not get what it means."""

import logging
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from warmstart.compat.transformers import attention_of
from warmstart.model.loss import IGNORED

_WITHOUT_WEIGHTS = ("sdpa", "flash_attention", "flex_attention")

_log = logging.getLogger(__name__)
_warned: set[str] = set()
_compared: "WeakSet[Any]" = WeakSet()  # models on a device, whose first labels were compared


def requested_outputs(model: Any, attentions: bool | None, hidden_states: bool | None) -> dict[str, bool]:
    """Make the arguments for both submodels: the call's own, else what the joint config switches on.

    A submodel's own config decides where neither does. Logs one warning where attentions will be missing.
    """
    chosen = {"output_attentions": attentions, "output_hidden_states": hidden_states}
    for name, value in chosen.items():
        if value is None and getattr(model.config, name, None):
            chosen[name] = True
    if chosen["output_attentions"]:
        for role in ("encoder", "decoder"):
            kind = str(attention_of(getattr(model, role).config))
            if kind.startswith(_WITHOUT_WEIGHTS):
                _warn(
                    f"output_attentions=True gives no attentions of the {role} under {kind} attention. Load with "
                    'attn_implementation="eager", or call model.set_attn_implementation("eager").'
                )
        if model.config.graft is not None:
            _warn("output_attentions=True gives no cross_attentions of a grafted decoder: they are not kept.")
    return {name: value for name, value in chosen.items() if value is not None}


def warn_of_copied_labels(model: Any, decoder_input_ids: Tensor | None, labels: Tensor | None) -> None:
    """Log one warning where each label is the decoder's input at its own position, so that copying is all to learn."""
    if decoder_input_ids is None or labels is None or decoder_input_ids.shape != labels.shape or _COPIED in _warned:
        return
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or labels.device.type == "meta":
        return
    if labels.device.type != "cpu":
        if model in _compared:
            return  # reading the result waits for the device: once, and not at every step
        _compared.add(model)
    is_label = labels != IGNORED
    copies = ((decoder_input_ids == labels) | ~is_label).all()
    differs_from_shifted = (is_label[:, 1:] & (labels[:, 1:] != labels[:, :-1])).any()
    if bool(copies & differs_from_shifted):
        _warn(_COPIED)


_COPIED = (
    "decoder_input_ids equal the labels, so the model learns to copy its input instead of predicting the next token. "
    "Leave decoder_input_ids out: they are made of the labels, shifted right."
)


def _warn(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning(message)
