"""Requested outputs of a ``forward`` call, and warnings about arguments that do not do what they seem to."""

import logging
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from warmstart.compat.transformers import attention_of
from warmstart.config.model import NO_ENCODER
from warmstart.model.loss import IGNORED

_WITHOUT_WEIGHTS = ("sdpa", "flash_attention", "flex_attention")

_log = logging.getLogger(__name__)
_warned: set[str] = set()
_compared: "WeakSet[Any]" = WeakSet()  # models on an accelerator whose labels were compared once
_without_dropout: "WeakSet[Any]" = WeakSet()  # models whose modules were searched for dropout once, in vain


def requested_outputs(model: Any, attentions: bool | None, hidden_states: bool | None) -> dict[str, bool]:
    """Return the output arguments for both submodels: from the call, else from the joint config.

    Without either, a submodel's own config applies. Logs a warning if attention weights will be missing.

    Args:
        model: The joint model.
        attentions: ``output_attentions`` of the call.
        hidden_states: ``output_hidden_states`` of the call.
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
                    f"output_attentions=True returns no attention weights of the {role} with {kind} attention. Load "
                    'with attn_implementation="eager", or call model.set_attn_implementation("eager").'
                )
        if model.config.graft is not None:
            _warn("output_attentions=True returns no cross_attentions of a grafted decoder: they are not stored.")
    return {name: value for name, value in chosen.items() if value is not None}


def to_resize(model: Any, submodel: str | None, new_num_tokens: int | None) -> list[Any]:
    """Return the submodels whose token embeddings ``resize_token_embeddings`` resizes.

    Shared embeddings are resized in both. Without an encoder, the decoder's are those of the source, too.

    Args:
        model: The joint model.
        submodel: ``encoder``, ``decoder``, or None for both.
        new_num_tokens: New vocabulary size; None keeps the current size.

    Raises:
        ValueError: ``submodel`` is another value, or is None although the vocabulary sizes differ.
    """
    if submodel not in (None, "encoder", "decoder"):
        raise ValueError(f"submodel must be 'encoder' or 'decoder', not {submodel!r}.")
    if model.encoder.config.model_type == NO_ENCODER:
        return [model.decoder]
    both = [model.encoder, model.decoder]
    are_shared = model.config.tie_encoder_decoder or model.config.tie_embeddings
    if submodel is not None and not are_shared:
        return [getattr(model, submodel)]
    encoder, decoder = (one.get_input_embeddings().num_embeddings for one in both)
    if new_num_tokens is not None and encoder != decoder:
        raise ValueError(
            f"Encoder and decoder have different vocabularies ({encoder} and {decoder} tokens): choose one with "
            "submodel='encoder' or submodel='decoder'."
        )
    return both


def warn_of_copied_labels(model: Any, decoder_input_ids: Tensor | None, labels: Tensor) -> None:
    """Log a warning, once, if the decoder's inputs equal the labels, so that the model would learn to copy.

    Args:
        model: The joint model.
        decoder_input_ids: (B, T), or None.
        labels: (B, T).
    """
    if decoder_input_ids is None or decoder_input_ids.shape != labels.shape or _COPIED in _warned:
        return
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or labels.device.type == "meta":
        return
    if labels.device.type != "cpu":
        if model in _compared:
            return  # the comparison waits for the device, so it runs only once
        _compared.add(model)
    is_label = labels != IGNORED
    copies = ((decoder_input_ids == labels) | ~is_label).all()
    differs_from_shifted = (is_label[:, 1:] & (labels[:, 1:] != labels[:, :-1])).any()
    if bool(copies & differs_from_shifted):
        _warn(_COPIED)


def warn_without_dropout(model: Any) -> None:
    """Log a warning, once, if a loss is computed with gradients in evaluation mode, although the model has dropout.

    Loading returns a model in evaluation mode, and neither a plain loop nor a Lightning ``Trainer`` changes the mode.

    Args:
        model: The joint model.
    """
    # is_compiling comes first: a compiled graph then contains none of this.
    if torch.compiler.is_compiling() or model.training or not torch.is_grad_enabled() or torch.jit.is_tracing():
        return
    if _WITHOUT_DROPOUT in _warned or model in _without_dropout:
        return
    if has_dropout(model):
        _warn(_WITHOUT_DROPOUT)
    else:
        _without_dropout.add(model)


def has_dropout(model: torch.nn.Module) -> bool:
    """Return whether a module of ``model`` drops values in training mode."""
    return any(_drops(module) for module in model.modules())


def _drops(module: torch.nn.Module) -> bool:
    if isinstance(module, torch.nn.Dropout):
        return module.p > 0
    # BART's layers call the function, and have the probability as a number.
    return any("drop" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items())


_WITHOUT_DROPOUT = (
    "A loss was computed with gradients, but the model is in evaluation mode: dropout is off. Loading returns a model "
    "in this mode. To train, call model.train() first; to evaluate, use torch.no_grad()."
)
_COPIED = (
    "decoder_input_ids equal the labels, so the model learns to copy its input instead of predicting the next token. "
    "Leave decoder_input_ids out: the labels, shifted right, are then used."
)


def _warn(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        _log.warning(message)
