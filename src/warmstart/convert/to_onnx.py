"""Convert a model to two ONNX graphs, ``encode.onnx`` and ``step.onnx``, for ONNX Runtime."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch

from warmstart.convert.graphs import graphs_of
from warmstart.errors import UserError, says_nothing_of_the_file


def write(model: Any, folder: Path) -> None:
    """Write both graphs; weights lie next to them in ``encode.onnx.data`` and ``step.onnx.data``.

    Args:
        model: The joint model in float32, with merged adapters.
        folder: An existing folder.

    Raises:
        UserError: The model cannot be converted; the message has the reason.
    """
    for name, graph in graphs_of(model)._asdict().items():
        recorded = graph.record()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its progress there
                program = torch.onnx.export(
                    recorded, input_names=graph.input_names, output_names=graph.output_names, verbose=False
                )
        except Exception as error:
            if says_nothing_of_the_file(error):
                raise
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise UserError(
                f"format=onnx was requested, but torch cannot convert the graph {name!r}: {reason} Choose "
                "format=torch_export or format=safetensors."
            ) from error
        assert program is not None
        program.save(folder / f"{name}.onnx", external_data=True)
