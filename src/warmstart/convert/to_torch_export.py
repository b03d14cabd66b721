"""Convert a model to two programs of ``torch.export``, ``encode.pt2`` and ``step.pt2``."""

from pathlib import Path
from typing import Any

import torch

from warmstart.convert.graphs import graphs_of


def write(model: Any, folder: Path) -> list[tuple[int, ...]]:
    """Write both programs. Each holds all weights of the model.

    Args:
        model: The joint model, with merged adapters.
        folder: An existing folder.

    Returns:
        Shapes (N, D) of keys and values of the target, in the order of the step's argument ``past``.

    Raises:
        UserError: The model cannot be recorded; the message has the reason.
    """
    graphs = graphs_of(model)
    for name, graph in graphs._asdict().items():
        torch.export.save(graph.record(), folder / f"{name}.pt2")
    return [(past.shape[1], past.shape[3]) for past in graphs.step.inputs["past"]]
