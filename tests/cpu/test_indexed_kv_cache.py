"""The indexed KV cache holds the keys and values of transformers' cache without copies."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_beam_cache import token
from test_grafting import NO_DROPOUT, SOURCE_WIDTH
from tiny import IDS, OURS, UPSTREAM, gap, small_config, small_decoder_config, source
from transformers.cache_utils import DynamicCache

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.cpu.beam_cache import BeamLayer, use_beam_layers
from warmstart.cpu.indexed_kv_cache import ROOM, IndexedKV, IndexedLayer
from warmstart.model.generation import beam_search

pytestmark = pytest.mark.usefixtures("kernels")


def both(rows, dtype=torch.float32, width=32):
    caches = DynamicCache(), DynamicCache()
    for cache in caches:
        for layer in range(2):
            cache.update(token(rows, layer, dtype, width), token(rows, layer + 50, dtype, width), layer)
    use_beam_layers(caches[1], indexed=True)
    return caches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reordering_growth_and_removal(dtype):
    plain, mine = both(6, dtype)
    rows, memory = 6, set()
    for step in range(2 * ROOM + 9):
        rows = {5: 3, ROOM + 2: 2}.get(step, rows)
        if step % 4 != 3:
            order = torch.randint(plain.layers[0].keys.shape[0], (rows,), generator=torch.Generator().manual_seed(step))
            plain.reorder_cache(order)
            mine.reorder_cache(order)
        for layer in range(2):
            states = token(rows, 7 * step + layer, dtype, 32), token(rows, 9 * step + layer, dtype, 32)
            for found, wanted in zip(mine.update(*states, layer), plain.update(*states, layer), strict=True):
                assert type(found) is IndexedKV
                assert found.shape == wanted.shape
                assert torch.equal(found, wanted)
                memory.add(found.memory_PNTD.data_ptr())
        assert mine.get_seq_length() == plain.get_seq_length()
    assert len(memory) <= 2 * 2 * 3  # keys and values of two layers, each grown twice


def test_other_operations_get_an_ordered_copy():
    _, cache = both(3)
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    keys, values = cache.update(token(3, 5, width=32), token(3, 6, width=32), 0)
    rows = keys.in_order()
    assert torch.equal(rows[0, :, 0], token(3, 0, width=32)[2, :, 0])
    assert torch.equal(keys.transpose(-1, -2), rows.transpose(-1, -2))
    assert torch.equal(keys[:, :, -1:], token(3, 5, width=32))
    assert torch.equal(torch.cat([keys, rows]), torch.cat([rows, rows]))
    query = torch.randn(3, 2, 1, 32)
    read = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    assert gap(read, torch.nn.functional.scaled_dot_product_attention(query, rows, values.in_order())) == 0


@settings(deadline=None, max_examples=40)
@given(st.tuples(*(st.integers(1, most) for most in (4, 3, 5, 40))), st.booleans(), st.booleans(), st.integers(0, 9))
def test_kernel_reads_through_the_index(kernels, size, low, masked, seed):
    (rows, heads, queries, keys), dtype = size, torch.bfloat16 if low else torch.float32
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(count, heads, length, 64, generator=generator).to(dtype)
        for count, length in ((rows, queries), (6, keys + 3), (6, keys + 3))
    )
    index = torch.randint(6, (rows, keys), generator=generator)
    mask = torch.rand(rows, 1, 1, keys, generator=generator) > 0.3 if masked else None
    assert kernels.can_attend(query, key, value, mask, index)
    read = kernels.attend(query, key, value, mask, 0.3, index)
    in_order = [x[:, :, :keys].gather(0, index[:, None, :, None].expand(-1, heads, -1, 64)) for x in (key, value)]
    assert torch.equal(kernels.in_order(key, index), in_order[0])
    assert torch.equal(read, kernels.attend(query, *in_order, mask, 0.3))


def test_index_that_does_not_fit_is_refused(kernels):
    query, key = torch.randn(3, 2, 1, 32), torch.randn(5, 2, 7, 32)
    index = torch.zeros(3, 7, dtype=torch.long)
    assert kernels.can_attend(query, key, key, None, index)
    assert kernels.can_attend(query, key, key, None, index[:, :6])
    assert not kernels.can_attend(query, key, key, None, index[:, :0])
    assert not kernels.can_attend(query, key[:, :, :6], key[:, :, :6], None, index)
    assert not kernels.can_attend(query, key, key, None, index[:2])
    assert not kernels.can_attend(query[:, :1], key, key, None, index)


def test_ordered_copy_without_the_kernel(monkeypatch):
    _, cache = both(3)
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    keys, _ = cache.update(token(3, 5, width=32), token(3, 6, width=32), 0)
    wanted = keys.in_order()
    monkeypatch.setattr("warmstart.cpu.indexed_kv_cache.cpu_kernels", lambda: None)
    assert torch.equal(keys.in_order(), wanted)
    assert keys.in_order().is_contiguous()


def test_wrong_number_of_sequences_is_refused():
    _, cache = both(3)
    with pytest.raises(ValueError, match="2 sequences were passed to a cache of 3 sequences"):
        cache.update(token(2, 5, width=32), token(2, 6, width=32), 0)


def test_unsupported_layers_use_a_beam_layer():
    cache = DynamicCache()
    cache.update(token(3, 0, width=32), token(3, 1, width=32), 0)
    cache.update(token(3, 0), token(3, 1), 1)  # a head size without a kernel
    cache.update(token(4, 0, width=32), token(4, 1, width=32), 2)  # another number of sequences than in the first layer
    use_beam_layers(cache, indexed=True)
    assert [type(layer) for layer in cache.layers] == [IndexedLayer, BeamLayer, BeamLayer]


def native(library=OURS):
    torch.manual_seed(0)
    decoder = small_decoder_config("gpt2", width=64, n_head=2, n_positions=100)
    model = library.join(small_config("bert", 64), decoder, pad_token_id=3)
    with torch.no_grad():
        model.decoder.lm_head.weight = torch.nn.Parameter(model.decoder.lm_head.weight.clone())
        model.decoder.lm_head.weight[2] *= -2
    return model


def grafted():
    torch.manual_seed(0)
    about = {"num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 100}
    encoder = small_config("bert", SOURCE_WIDTH, **NO_DROPOUT)
    graft = {"gate": "none", "every_n_layers": 1}
    config = EncoderDecoderConfig(encoder=encoder, decoder=small_decoder_config("llama", **about), graft=graft, **IDS)
    return EncoderDecoderModel(config).eval()


SEARCH = {"num_beams": 3, "min_new_tokens": 4, "max_new_tokens": ROOM + 20, "early_stopping": True}


@pytest.mark.parametrize("copied", [False, True], ids=["in-place", "in-order"])
@pytest.mark.parametrize("make", [native, grafted])
def test_ids_equal_transformers_search(make, copied, monkeypatch):
    counted = {"indexed": 0, "in order": 0}
    update, in_order, model = IndexedLayer.update, IndexedKV.in_order, make()

    def counting(name, function):
        return lambda *args, **options: counted.update({name: counted[name] + 1}) or function(*args, **options)

    monkeypatch.setattr(IndexedLayer, "update", counting("indexed", update))
    monkeypatch.setattr(IndexedKV, "in_order", counting("in order", in_order))
    if copied:
        monkeypatch.setattr("warmstart.cpu.decode_attention.serves", lambda *_: False)
    given = source(batch_size=5) | SEARCH
    found = model.generate(**given)
    assert counted["indexed"] > 10
    assert (counted["in order"] > 0) == copied
    monkeypatch.setattr(beam_search, "can_drop", lambda *_: False)
    assert torch.equal(found, model.generate(**given))


def test_ids_equal_transformers_class():
    ours, theirs = native(), native(UPSTREAM)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for early in (True, False):
        given = source(batch_size=5) | SEARCH | {"early_stopping": early, "no_repeat_ngram_size": 3}
        found = ours.generate(**given)
        assert found.shape[1] > ROOM
        assert torch.equal(found, theirs.generate(**given))
