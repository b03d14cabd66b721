"""Parameters that encoder and decoder share.

BERTSHARE (Rothe et al. 2020) uses one set of weights for encoder and decoder, except for cross-attention. transformers
4 wrote such checkpoints with ``tie_encoder_decoder: true`` and one copy of each tensor. transformers 5 ignores the flag
and initializes the other submodel at random. Here any sharing is a mapping ``{name: name of the parameter that it
equals}``, by which transformers ties the parameters when a model is built, loaded or saved.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def weight_sharing_map(encoder: PreTrainedModel, decoder: PreTrainedModel) -> dict[str, str]:
    """Map every encoder parameter to the one of the same name and shape in the decoder's base model.

    Raises:
        ValueError: An encoder parameter other than the pooler's has no counterpart in the decoder, or the decoder has
            no base model.
    """
    prefix = decoder.base_model_prefix
    base = getattr(decoder, prefix, None)
    if not isinstance(base, nn.Module):
        raise ValueError(  # noqa: TRY004 - invalid input is a ValueError here, also if it is a model
            f"Cannot share weights: the decoder {type(decoder).__name__} has no base model {prefix!r}. "
            "Choose another decoder, or share nothing."
        )
    decoder_shapes = {name: p.shape for name, p in base.named_parameters(remove_duplicate=False)}
    names, unmatched = {}, []
    for name, parameter in encoder.named_parameters(remove_duplicate=False):
        if decoder_shapes.get(name) == parameter.shape:
            names[f"encoder.{name}"] = f"decoder.{prefix}.{name}"
        elif not name.startswith("pooler."):
            unmatched.append(name)
    if unmatched:
        raise ValueError(
            f"Cannot share weights between {type(encoder).__name__} and {type(decoder).__name__}: "
            f"{len(unmatched)} encoder parameters have no counterpart of the same shape, such as {unmatched[0]!r}. "
            "Use an encoder and a decoder of the same architecture, hidden size, depth and vocabulary."
        )
    return names


def embedding_sharing_map(encoder: PreTrainedModel, decoder: PreTrainedModel) -> dict[str, str]:
    """Map the encoder's token embeddings to the decoder's.

    Raises:
        ValueError: Vocabulary size or hidden size differ.
    """
    source: Any = encoder.get_input_embeddings().weight
    target: Any = decoder.get_input_embeddings().weight
    if source.shape != target.shape:
        raise ValueError(
            f"Cannot share embeddings: the encoder's are {tuple(source.shape)}, the decoder's {tuple(target.shape)}. "
            "Use an encoder and a decoder of the same vocabulary and hidden size."
        )
    return {
        f"encoder.{_name_of(encoder, encoder.get_input_embeddings())}.weight": (
            f"decoder.{_name_of(decoder, decoder.get_input_embeddings())}.weight"
        )
    }


def sharing_map(config: Any, encoder: PreTrainedModel, decoder: PreTrainedModel) -> dict[str, str]:
    """Return the sharing that the joint ``config`` sets: all weights, the token embeddings, or nothing.

    Raises:
        ValueError: Encoder and decoder cannot share these parameters.
    """
    if config.tie_encoder_decoder:
        return weight_sharing_map(encoder, decoder)
    return embedding_sharing_map(encoder, decoder) if config.tie_embeddings else {}


@torch.no_grad()
def keep_pretrained(config: Any, encoder: PreTrainedModel, decoder: PreTrainedModel, untrained: set[str]) -> None:
    """Copy pretrained encoder values to untrained decoder parameters that will be shared, in place.

    Tying keeps the decoder's values, so this runs before it.

    Args:
        config: The joint config.
        encoder: The encoder.
        decoder: The decoder.
        untrained: Parameter names of the joint model that no checkpoint contained.

    Raises:
        ValueError: Encoder and decoder cannot share these parameters.
    """
    for name, equal in sharing_map(config, encoder, decoder).items():
        if equal in untrained and name not in untrained:
            value = encoder.get_parameter(name.removeprefix("encoder."))
            decoder.get_parameter(equal.removeprefix("decoder.")).copy_(value)


def shared_across_halves(model: nn.Module) -> dict[str, str]:
    """Return the parameters that encoder and decoder share now, ``{encoder name: decoder name}``."""
    names_of = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names_of[id(parameter)].append(name)
    shared = {}
    for names in names_of.values():
        of_decoder = [name for name in names if not name.startswith("encoder.")]
        if of_decoder:
            shared.update({name: of_decoder[0] for name in names if name.startswith("encoder.")})
    return shared


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(str(name) for name, module in model.named_modules() if module is wanted)
