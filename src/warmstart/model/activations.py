"""Replace activations that transformers computes in several operations by torch's fused GELU.

    fuse_activations(model.decoder)

transformers computes GPT-2's ``gelu_new`` in eight operations, and autograd keeps four of their results. torch's fused
operation keeps only its input (docs/performance.md). Results are equal up to rounding, and more exact in bfloat16. The
config and the checkpoint do not change.
"""

from torch import nn
from transformers.activations import AccurateGELUActivation, FastGELUActivation, NewGELUActivation

UNFUSED = (NewGELUActivation, FastGELUActivation, AccurateGELUActivation)


def fuse_activations(submodel: nn.Module) -> None:
    """Replace every unfused tanh approximation of GELU in ``submodel`` by ``nn.GELU``, in place."""
    for module in list(submodel.modules()):
        for name, child in module.named_children():
            if type(child) in UNFUSED:
                setattr(module, name, nn.GELU(approximate="tanh"))
