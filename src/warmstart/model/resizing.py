"""Token embeddings of one half, or of both where they have one vocabulary, made larger or smaller."""

from typing import Any

from torch import nn


def resize_token_embeddings(
    model: Any, half: str | None, new_num_tokens: int | None, pad_to_multiple_of: int | None, mean_resizing: bool
) -> nn.Module:
    """Resize ``half`` (``encoder``, ``decoder`` or None for both), share again what was shared, return the embeddings.

    Raises:
        ValueError: ``half`` is something else, or is None although the vocabularies differ.
    """
    if half not in (None, "encoder", "decoder"):
        raise ValueError(f"half must be 'encoder' or 'decoder', not {half!r}.")
    sizes = {name: getattr(model, name).get_input_embeddings().num_embeddings for name in ("encoder", "decoder")}
    if half is None and new_num_tokens is not None and sizes["encoder"] != sizes["decoder"]:
        raise ValueError(
            f"The halves have different vocabularies ({sizes['encoder']} and {sizes['decoder']} tokens): "
            "name one with half='encoder' or half='decoder'."
        )
    embeddings: nn.Module | None = None
    for name in ("encoder", "decoder") if half is None else (half,):
        embeddings = getattr(model, name).resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
    if model.config.tie_encoder_decoder or model.config.tie_embeddings:
        model.tie_weights()
    assert embeddings is not None
    return embeddings
