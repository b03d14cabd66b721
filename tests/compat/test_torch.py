"""The private APIs of torch exist, and behave as documented in compat/torch.py."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from moved import assert_has
from torch import Tensor, nn
from torch.distributed import distributed_c10d

from warmstart.compat import torch as compat

READ_IN = "2.13.0"


def has(owner, name):
    assert_has(owner, name, "torch", READ_IN)


def test_a_tensor_subclass_without_memory():
    has(Tensor, "_make_wrapper_subclass")
    has(torch._C, "_disabled_torch_function_impl")

    class Doubled(Tensor):
        inner: Tensor

        @staticmethod
        def __new__(cls, inner):
            made = compat.wrapper_tensor(cls, (2, 3), like=inner)
            made.inner = inner
            return made

        __torch_function__ = compat.DISABLED_TORCH_FUNCTION

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            return func(*(2 * x.inner if isinstance(x, cls) else x for x in args), **kwargs or {})

    made = Doubled(torch.ones(2, 3, dtype=torch.float64))
    assert (made.shape, made.dtype) == ((2, 3), torch.float64)
    assert type(made + 1) is Tensor
    assert torch.equal(made + 1, torch.full((2, 3), 3.0, dtype=torch.float64))


def test_in_place_changes_are_counted():
    has(torch.ones(1), "_version")
    tensor = torch.ones(2)
    before = compat.version_of(tensor)
    tensor.add_(1)
    assert compat.version_of(tensor) == before + 1
    with torch.inference_mode():
        assert compat.version_of(torch.ones(2)) == 0


def test_softmax_and_its_gradient():
    has(torch, "_softmax_backward_data")
    has(torch, "_safe_softmax")
    scores = torch.randn(3, 5, requires_grad=True)
    probabilities, grad = torch.softmax(scores, dim=-1), torch.randn(3, 5)
    probabilities.backward(grad)
    assert torch.equal(compat.softmax_gradient(grad, probabilities.detach()), scores.grad)
    barred = scores.detach().clone()
    barred[1] = float("-inf")
    found = compat.safe_softmax(barred)
    assert torch.equal(found[0], probabilities[0])
    assert not found[1].any()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN")
def test_prepacked_products():
    for name in ("_reorder_linear_weight", "_linear_pointwise"):
        has(torch.ops.mkldnn, name)
    assert compat.can_prepack()
    weight, bias, rows = torch.randn(7, 5), torch.randn(7), torch.randn(4, 5)
    for added in (bias, None):
        found = compat.prepacked_linear(rows, compat.prepack(weight, 4), added)
        torch.testing.assert_close(found, F.linear(rows, weight, added))


def test_compiled_call_can_be_removed_and_restored():
    layer = nn.Linear(2, 2)
    has(layer, "_compiled_call_impl")
    assert compat.compiled_call(layer) is None
    layer.compile(backend="eager")
    made = compat.compiled_call(layer)
    assert made is not None, "Module.compile keeps what it made elsewhere now: see compiled_call in compat/torch.py."
    compat.set_compiled_call(layer, lambda _: "compiled")
    assert layer(torch.ones(1, 2)) == "compiled"
    compat.set_compiled_call(layer, None)
    assert layer(torch.ones(1, 2)).shape == (1, 2)


def test_store_of_the_default_process_group():
    has(distributed_c10d, "_get_default_store")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        store = compat.default_store()
        store.set("key", "value")
        assert store.get("key") == b"value"
        has(store, "clone")
    finally:
        dist.destroy_process_group()
