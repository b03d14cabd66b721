"""Token embeddings of an untrained decoder that start as a copy of the encoder's, as in BertSum (Liu & Lapata 2019).

They are separate parameters, unlike ``bridge.share=embeddings``. A decoder whose LM head is tied to them writes with a
copy of them, too.
"""

from typing import Any

import torch


@torch.no_grad()
def copy_embeddings(model: Any) -> None:
    """Copy the encoder's token embeddings into the decoder of a joint model, in place, and count them as pretrained.

    Raises:
        ValueError: The hidden sizes differ, or the decoder has more tokens than the encoder.
    """
    own, other = model.encoder.get_input_embeddings().weight, model.decoder.get_input_embeddings().weight
    if own.shape[1] != other.shape[1] or len(own) < len(other):
        raise ValueError(
            f"bridge.embeddings=copy needs equal hidden sizes, and at least as many tokens in the encoder as in the "
            f"decoder, but the encoder has {list(own.shape)} and the decoder {list(other.shape)} (tokens, hidden "
            "size). Set the sizes in decoder.architecture."
        )
    other.copy_(own[: len(other)])
    mark_copied(model)


def mark_copied(model: Any) -> None:
    """Count the decoder's token embeddings as pretrained if the encoder's are."""
    new = model.new_parameter_names()
    own, copied = model.encoder.get_input_embeddings().weight, model.decoder.get_input_embeddings().weight
    names: dict[int, set[str]] = {id(own): set(), id(copied): set()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.get(id(parameter), set()).add(name)
    if not names[id(own)] & new:
        model._new_parameters = new - names[id(copied)]  # noqa: SLF001 - the model does not know of copies
