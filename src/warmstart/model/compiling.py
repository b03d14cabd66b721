"""Apply torch.compile to each layer, with dynamic batch sizes and lengths.

    compile_layers(model)          # training and likelihoods are compiled; generation is not
    torch.compile(model)           # would recompile for each length, and break the graph at the source's hooks

Layers of one class share a graph, so a model of 24 layers compiles two or three. Embeddings and the loss are not
compiled.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from warmstart.compat.torch import compiled_call, set_compiled_call
from warmstart.model.bridge.grafting import decoder_layers, outermost_lists
from warmstart.shared_change import shared_change


def compile_layers(model: Any) -> list[nn.Module]:
    """Compile the layers of encoder and decoder at their first call, in place; parameter names do not change.

    Args:
        model: The joint model.

    Returns:
        The layers.

    Raises:
        ValueError: The decoder has no list of layers.
    """
    layers = [layer for found in outermost_lists(model.encoder) for layer in found] + decoder_layers(model.decoder)
    for layer in layers:
        layer.compile(dynamic=True)
    return layers


def compiled_layers(model: Any) -> list[nn.Module]:
    """Return the layers that ``compile_layers`` has compiled; none within ``uncompiled``."""
    return [module for module in model.modules() if compiled_call(module) is not None]


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """Run compiled layers without their graphs within the context: a growing KV cache would recompile at each step."""
    with shared_change(model, "uncompiled", lambda: _exchange(model)):
        yield


def _exchange(model: Any) -> Callable[[], None]:
    layers = compiled_layers(model)
    kept = [compiled_call(layer) for layer in layers]
    for layer in layers:
        set_compiled_call(layer, None)

    def undo() -> None:
        for layer, compiled in zip(layers, kept, strict=True):
            set_compiled_call(layer, compiled)

    return undo
