"""Activations in one operation where a checkpoint's config names a formula of eight.

    fuse_activations(model.decoder)

GPT-2's ``gelu_new`` and its kin are written out in transformers: eight operations, of which autograd keeps four results
as wide as the feed-forward layer. torch has the same function as one operation that keeps its input alone
(docs/performance.md has what that saves). Values are the same up to rounding; in bfloat16 they are nearer to the exact
ones, since nothing is rounded half way. The config, and so the checkpoint, does not change.
"""

from torch import nn
from transformers.activations import AccurateGELUActivation, FastGELUActivation, NewGELUActivation

WRITTEN_OUT = (NewGELUActivation, FastGELUActivation, AccurateGELUActivation)


def fuse_activations(half: nn.Module) -> None:
    """Exchange every activation of ``half`` that is the tanh approximation of GELU, written out, for torch's own."""
    for module in list(half.modules()):
        for name, child in module.named_children():
            if type(child) in WRITTEN_OUT:
                setattr(module, name, nn.GELU(approximate="tanh"))
