"""torch.compile, layer by layer: one graph for all layers of a kind, and for batches of every length.

    compile_layers(model)          # training and likelihoods are compiled; generation is not
    torch.compile(model)           # would compile anew for each length, and stop at the hooks of the source

Layers of one class share their code, so a model of 24 layers compiles two or three of them; lengths and rows are
dynamic, so no buckets are needed. What lies between layers (embeddings, the loss) runs as it did.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from warmstart.compat.torch import compiled_call, set_compiled_call
from warmstart.model.bridge.grafting import decoder_layers, outermost_lists
from warmstart.shared_change import shared_change


def compile_layers(model: Any) -> list[nn.Module]:
    """Compile the layers of both halves in place, at their first call; the names of parameters stay what they are.

    Raises:
        ValueError: the decoder has no list of layers.
    """
    layers = [layer for found in outermost_lists(model.encoder) for layer in found] + decoder_layers(model.decoder)
    for layer in layers:
        layer.compile(dynamic=True)
    return layers


def compiled_layers(model: Any) -> list[nn.Module]:
    """What :func:`compile_layers` has compiled; nothing inside :func:`uncompiled`."""
    return [module for module in model.modules() if compiled_call(module) is not None]


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """Inside, compiled layers run as they were written: a cache that grows at each step would compile at each step."""
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
