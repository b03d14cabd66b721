"""ONNX Runtime generates the ids that the model does, with a KV cache."""

import numpy as np
import pytest
from small_pairs import BATCHES, greedy, ours, pair
from torch import from_numpy

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from warmstart.convert import to_onnx  # noqa: E402 - after the packages that it needs


class Session:
    """A graph that is called like a program of ``torch.export``."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.caches = [one for one in self.session.get_inputs() if "_keys_" in one.name or "_values_" in one.name]

    def __call__(self, source=(), past=(), **tensors):
        given = dict(zip([one.name for one in self.caches], [*source, *past], strict=True)) | tensors
        found = self.session.run(None, {name: np.asarray(value) for name, value in given.items()})
        found = [from_numpy(one) for one in found]
        return (found[0], found[1:]) if self.caches else found


@pytest.mark.parametrize("decoder", ["gpt2", "llama"], ids=["native", "grafted"])
def test_graphs_generate_the_models_ids(decoder, tmp_path):
    model = pair(decoder)
    to_onnx.write(model, tmp_path)
    encode, step = (Session(tmp_path / f"{name}.onnx") for name in ("encode", "step"))
    shapes = [(one.shape[1], one.shape[3]) for one in step.caches if one.name.startswith("past_")]
    assert [greedy(encode, step, shapes, batch) for batch in BATCHES] == [ours(model, batch) for batch in BATCHES]
