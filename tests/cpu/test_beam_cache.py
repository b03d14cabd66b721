"""The beam cache holds the keys and values of transformers' cache, and reuses memory."""

import pytest
import torch
from transformers.cache_utils import DynamicCache

from warmstart.cpu.beam_cache import BeamLayer, use_beam_layers


def token(rows, seed, dtype=torch.float32, width=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, 1, width, generator=generator).to(dtype)


def both(rows, dtype=torch.float32, layers=3):
    caches = DynamicCache(), DynamicCache()
    for cache in caches:
        for layer in range(layers):
            cache.update(token(rows, layer, dtype), token(rows, layer + 50, dtype), layer)
    use_beam_layers(caches[1], indexed=False)
    return caches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reordering_growth_and_removal(dtype):
    plain, mine = both(6, dtype)
    rows = 6
    for step in range(12):
        if step == 5:
            rows = 3
        if step % 4 != 3:
            order = torch.randint(plain.layers[0].keys.shape[0], (rows,), generator=torch.Generator().manual_seed(step))
            plain.reorder_cache(order)
            mine.reorder_cache(order)
        for layer in range(3):
            given = token(rows, 7 * step + layer, dtype), token(rows, 9 * step + layer, dtype)
            for found, wanted in zip(mine.update(*given, layer), plain.update(*given, layer), strict=True):
                assert torch.equal(found, wanted)
                assert found.is_contiguous()
        assert mine.get_seq_length() == plain.get_seq_length()


def test_memory_is_reused():
    _, cache = both(4)
    addresses = set()
    for step in range(40):
        cache.reorder_cache(torch.arange(4).flip(0))
        for layer in range(3):
            cache.update(token(4, step), token(4, step), layer)
            addresses |= {cache.layers[layer].keys.data_ptr(), cache.layers[layer].values.data_ptr()}
    assert len(addresses) < 60  # of 240 tensors
    assert all(type(layer) is BeamLayer for layer in cache.layers)
