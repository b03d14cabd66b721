"""Count the parameters of a model."""

from torch import nn
from transformers import PreTrainedModel

from warmstart.model.decoders import cross_attention_modules
from warmstart.model.modeling import EncoderDecoderModel


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Count parameters as ``result.json`` reports them; shared ones count once.

    Returns:
        ``total``, ``trainable``, ``pretrained`` (from a checkpoint) and ``new`` (in no checkpoint).
    """
    new = model.new_parameter_names() if isinstance(model, EncoderDecoderModel) else set()
    named = dict(model.named_parameters())
    total = sum(p.numel() for p in named.values())
    fresh = sum(p.numel() for name, p in named.items() if name in new)
    trainable = sum(p.numel() for p in named.values() if p.requires_grad)
    return {"total": total, "trainable": trainable, "pretrained": total - fresh, "new": fresh}


def has_new_cross_attention(model: nn.Module) -> bool:
    """Return whether the decoder's cross-attention is in no checkpoint, so that it has to be learnt."""
    if not isinstance(model, EncoderDecoderModel):
        return False
    modules = ("cross_attention.", *(f"decoder.{name}." for name in cross_attention_modules(model.decoder)))
    return any(name.startswith(modules) for name in model.new_parameter_names())


def hidden_matrices(model: nn.Module) -> set[str]:
    """Return the names of all parameters with two axes, except those of embeddings and output heads."""
    parts = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    heads = {id(head.weight) for part in parts if (head := part.get_output_embeddings()) is not None}
    left_out = heads | {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    return {name for name, one in model.named_parameters() if one.dim() == 2 and id(one) not in left_out}
