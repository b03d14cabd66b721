"""Which parameters of the two halves are one and the same.

BERTSHARE (Rothe et al. 2020) gives encoder and decoder one set of weights; the cross-attention stays the decoder's own.
transformers 4 wrote such checkpoints with ``tie_encoder_decoder: true`` and one copy of each tensor; transformers 5
ignores the flag and leaves the other half random. Here every kind of sharing is one mapping ``{name: name it equals}``
in the joint model's parameter names, which transformers' own tying machinery then honours on build, load and save.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def weight_sharing_map(encoder: PreTrainedModel, decoder: PreTrainedModel) -> dict[str, str]:
    """Pair every encoder parameter with the decoder's of the same name below its base model, where shapes agree.

    Raises:
        ValueError: the halves differ in architecture, so that sharing would silently share next to nothing.
    """
    prefix = decoder.base_model_prefix
    base = getattr(decoder, prefix, None)
    # A decoder that stores its layers under other names (Roberta's CausalLM over RobertaModel) still nests one base.
    if not isinstance(base, nn.Module):
        raise ValueError(f"Cannot share weights: decoder {type(decoder).__name__} has no base model {prefix!r}.")
    decoder_shapes = {name: p.shape for name, p in base.named_parameters(remove_duplicate=False)}
    names, alone = {}, []
    for name, parameter in encoder.named_parameters(remove_duplicate=False):
        if decoder_shapes.get(name) == parameter.shape:
            names[f"encoder.{name}"] = f"decoder.{prefix}.{name}"
        elif not name.startswith("pooler."):
            alone.append(name)
    if alone:
        raise ValueError(
            f"Cannot share weights between {type(encoder).__name__} and {type(decoder).__name__}: "
            f"{len(alone)} encoder parameters have no counterpart of the same shape, such as {alone[0]!r}. "
            "Sharing needs two halves of one architecture, width, depth and vocabulary."
        )
    return names


def embedding_sharing_map(encoder: PreTrainedModel, decoder: PreTrainedModel) -> dict[str, str]:
    """Pair the token embeddings of the two halves.

    Raises:
        ValueError: vocabulary or width differ.
    """
    source: Any = encoder.get_input_embeddings().weight
    target: Any = decoder.get_input_embeddings().weight
    if source.shape != target.shape:
        raise ValueError(
            f"Cannot share embeddings: the encoder's are {tuple(source.shape)}, the decoder's {tuple(target.shape)}. "
            "Sharing needs one vocabulary and one width."
        )
    return {
        f"encoder.{_name_of(encoder, encoder.get_input_embeddings())}.weight": (
            f"decoder.{_name_of(decoder, decoder.get_input_embeddings())}.weight"
        )
    }


def sharing_map(config: Any, encoder: PreTrainedModel, decoder: PreTrainedModel) -> dict[str, str]:
    """The pairs of what the joint ``config`` shares: all weights, the token embeddings, or nothing.

    Raises:
        ValueError: the halves do not fit each other.
    """
    if config.tie_encoder_decoder:
        return weight_sharing_map(encoder, decoder)
    return embedding_sharing_map(encoder, decoder) if config.tie_embeddings else {}


@torch.no_grad()
def keep_pretrained(config: Any, encoder: PreTrainedModel, decoder: PreTrainedModel, untrained: set[str]) -> None:
    """Before the halves are tied, which keeps the decoder's values: give it the encoder's where its own are untrained.

    Raises:
        ValueError: the halves do not fit each other.
    """
    for name, equal in sharing_map(config, encoder, decoder).items():
        if equal in untrained and name not in untrained:
            value = encoder.get_parameter(name.removeprefix("encoder."))
            decoder.get_parameter(equal.removeprefix("decoder.")).copy_(value)


def shared_across_halves(model: nn.Module) -> dict[str, str]:
    """Parameters that encoder and decoder hold in common right now, whoever made them so."""
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
