"""Count the parameters of a model."""

from torch import nn

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
