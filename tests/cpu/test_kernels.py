"""The compiled kernels equal torch, check their arguments, and are optional."""

import logging
import os
import stat

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import gap
from transformers import BertConfig, GPT2Config

import warmstart
from warmstart.cpu import kernels as module
from warmstart.cpu.decode_attention import attend
from warmstart.cpu.kernels import HEAD_SIZES, CpuKernels, build_cpu_kernels, cpu_kernels

sizes = st.tuples(*(st.integers(1, most) for most in (3, 3, 9, 40)))


def drawn(size, width, dtype, seed=0):
    """Return query, key and value as in a decoder: views of (B, T, N, D)."""
    batch, heads, queries, keys = size
    generator = torch.Generator().manual_seed(seed)
    lengths = (queries, keys, keys)
    return [
        torch.randn(batch, length, heads, width, generator=generator).to(dtype).transpose(1, 2) for length in lengths
    ]


def wanted(query, key, value, mask, scale):
    scores = query.double() @ key.double().transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.nan_to_num(torch.softmax(scores, dim=-1)) @ value.double()


@settings(deadline=None, max_examples=60)
@given(
    sizes,
    st.sampled_from(HEAD_SIZES),
    st.sampled_from(["none", "rows", "each", "end"]),
    st.booleans(),
    st.integers(0, 9),
)
def test_attention_kernel_equals_torch(kernels, size, width, kind, low, seed):
    query, key, value = drawn(size, width, torch.bfloat16 if low else torch.float32, seed)
    batch, _, queries, keys = size
    masks = {
        "none": None,
        "rows": torch.rand(batch, 1, 1, keys) > 0.5,
        "each": torch.rand(batch, 1, queries, keys) > 0.5,
        "end": (torch.arange(keys) < torch.randint(0, keys + 1, (batch, 1)))[:, None, None],
    }
    mask = masks[kind]
    with torch.no_grad():
        assert kernels.can_attend(query, key, value, mask)
        read = kernels.attend(query, key, value, mask, 0.3)
    assert read.transpose(1, 2).is_contiguous()
    exact = wanted(query, key, value, mask, 0.3)
    assert gap(read, exact) <= (8e-3 if low else 5e-6) * max(1.0, float(exact.abs().max()))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 140), st.integers(1, 70), st.integers(1, 40), st.booleans(), st.booleans())
def test_product_kernel_equals_torch(kernels, rows, columns, inner, with_bias, turned):
    generator = torch.Generator().manual_seed(rows * columns)
    weight = torch.randn(inner, columns, generator=generator).t() if turned else torch.randn(columns, inner)
    given_rows, bias = torch.randn(rows, 1, inner), torch.randn(columns) if with_bias else None
    found = kernels.product(given_rows, kernels.prepack(weight), bias, columns)
    assert found.shape == (rows, 1, columns)
    exact = F.linear(given_rows.double(), weight.double(), bias if bias is None else bias.double())
    assert gap(found, exact) < 1e-5 * inner


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.sampled_from([0.1, 1.0, 30.0]), st.booleans())
def test_gelu_kernel_equals_torch(kernels, count, size, low):
    numbers = size * torch.randn(count, generator=torch.Generator().manual_seed(count))
    numbers = numbers.to(torch.bfloat16 if low else torch.float32)
    found = kernels.gelu(numbers)
    assert found.dtype is numbers.dtype
    exact = F.gelu(numbers.double(), approximate="tanh")
    error = (found.double() - exact).abs()
    assert (error <= (4e-3 * exact.abs() + 1e-6 if low else 2e-7 * (1 + numbers.abs()))).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 200), st.sampled_from([0.1, 1.0, 100.0]), st.booleans())
def test_log_softmax_kernel_equals_torch(kernels, rows, width, size, low):
    logits = size * torch.randn(rows, 2, width, generator=torch.Generator().manual_seed(width))
    logits = logits.to(torch.bfloat16 if low else torch.float32)[:, -1]
    logits[0, 0] = float("-inf") if width > 1 else 1.0
    found = kernels.log_softmax(logits)
    exact = torch.log_softmax(logits.double(), dim=-1)
    assert found.dtype is torch.float32
    assert torch.equal(found.isinf(), exact.isinf())
    assert torch.allclose(found.double(), exact, rtol=3e-7, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [16, 21])
def test_nan_is_kept_by_elementwise_kernels(kernels, dtype, count):
    numbers = torch.zeros(2, count, dtype=dtype)
    for place in (0, count - 1):
        numbers[1, place] = float("nan")
        assert kernels.gelu(numbers).isnan().tolist() == numbers.isnan().tolist()
        assert kernels.log_softmax(numbers).isnan().all(dim=1).tolist() == [False, True]
        numbers[1, place] = 0
    assert kernels.log_softmax(torch.full((1, count), float("-inf"), dtype=dtype)).isnan().all()


def test_memory_next_to_the_result_is_not_written(kernels):
    rows, columns, inner = 5, 21, 8
    around = torch.full((rows * columns + 64,), 7.0)
    weight, given_rows = kernels.prepack(torch.randn(columns, inner)), torch.randn(rows, inner)
    inside = around[32:-32]
    kernels._product(given_rows.data_ptr(), weight.data_ptr(), None, inside.data_ptr(), rows, columns, inner)
    assert not (inside == 7).any()
    row = torch.randn(rows * columns)
    kernels._gelu(0, row.data_ptr(), inside.data_ptr(), rows * columns)
    assert torch.equal(inside, kernels.gelu(row))
    kernels._log_softmax(0, row.data_ptr(), columns, inside.data_ptr(), rows, columns)
    assert torch.equal(inside.view(rows, columns), kernels.log_softmax(row.view(rows, columns)))
    assert (around[:32] == 7).all()
    assert (around[-32:] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_keeps_nan_and_does_not_overflow(kernels, dtype):
    query, key, value = drawn((1, 2, 3, 20), 32, dtype)
    key[0, 1, 4, 0] = float("nan")
    with torch.no_grad():
        read = kernels.attend(query, key, value, None, 1.0)
        assert read[:, 1].isnan().all()
        assert not read[:, 0].isnan().any()
        query, key, value = drawn((1, 2, 3, 20), 32, dtype)
        assert kernels.attend(query * 1000, key * 1000, value, None, 1.0).isfinite().all()


def test_results_do_not_depend_on_the_number_of_threads(kernels):
    query, key, value = drawn((4, 3, 4, 33), 64, torch.float32)
    weight, before = torch.randn(100, 64), torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.no_grad():
            product = kernels.product(query.flatten(0, 2), kernels.prepack(weight), None, 100)
            results.append((kernels.attend(query, key, value, None, 0.1), product))
    torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_unsupported_tensors_are_refused(kernels):
    query, key, value = drawn((1, 2, 3, 20), 32, torch.float32)
    mask = torch.ones(1, 1, 3, 20, dtype=torch.bool)
    assert kernels.can_attend(query, key, value, mask)
    assert not kernels.can_attend(query, key, value, mask.float())
    assert not kernels.can_attend(query, key.bfloat16(), value, mask)
    assert not kernels.can_attend(*(x.double() for x in (query, key, value)), mask)
    assert not kernels.can_attend(*(x[..., :30] for x in (query, key, value)), mask)
    assert not kernels.can_attend(query, key.transpose(2, 3).contiguous().transpose(2, 3), value, mask)
    assert not kernels.can_attend(query, key[:, :, :0], value[:, :, :0], None)
    assert not kernels.can_attend(query, key[:, :, :19], value, None)
    assert not kernels.can_attend(query, key[:, :1], value[:, :1], None)
    assert not kernels.can_attend(query, key, value, mask[..., :19])
    assert not kernels.can_attend(query, key, value, mask.expand(-1, 2, -1, -1))
    assert not kernels.can_attend(*(x.to("meta") for x in (query, key, value)), None)
    assert kernels.attend(query, key.bfloat16(), value, None, 1.0) is None


def test_no_method_accepts_tensors_of_wrong_size(kernels):
    rows, matrix, bias = torch.randn(3, 8), kernels.prepack(torch.randn(20, 8)), torch.randn(20)
    assert kernels.product(rows, matrix, bias, 20).shape == (3, 20)
    for wrong in (
        (rows[:, :7], matrix, bias, 20),
        (rows.double(), matrix, bias, 20),
        (rows.to("meta"), matrix, bias, 20),
        (rows, matrix[:1], bias, 20),
        (rows, matrix.double(), bias, 20),
        (rows, matrix, bias[:19], 20),
        (rows, matrix, torch.randn(40)[::2], 20),
        (rows, matrix, None, 70),
    ):
        with pytest.raises(ValueError, match="Cannot compute a product of"):
            kernels.product(*wrong)
    for tensor in (rows.t(), rows.double(), rows.half(), rows.to("meta"), rows[:, ::2]):
        with pytest.raises(ValueError, match="The GELU kernel takes"):
            kernels.gelu(tensor)
        with pytest.raises(ValueError, match="The log_softmax kernel takes"):
            kernels.log_softmax(tensor)
    with pytest.raises(ValueError, match="The log_softmax kernel takes"):
        kernels.log_softmax(rows[0])


@pytest.mark.parametrize("row", [-1, 5, 2**40])
def test_index_outside_the_memory_is_refused(kernels, row):
    query, memory, index = torch.randn(3, 2, 1, 32), torch.randn(5, 2, 7, 32), torch.full((3, 7), 4)
    assert kernels.attend(query, memory, memory, None, 1.0, index).shape == query.shape
    assert kernels.in_order(memory, index).shape == (3, 2, 7, 32)
    for wrong in (index.int(), index[0], torch.full((3, 8), 4), index.to("meta")):
        assert kernels.attend(query, memory, memory, None, 1.0, wrong) is None
        with pytest.raises(ValueError, match="cannot be copied by an index"):
            kernels.in_order(memory, wrong)
    index[2, 6] = row
    with pytest.raises(ValueError, match="contains a row outside its 5 memory rows"):
        kernels.attend(query, memory, memory, None, 1.0, index)
    with pytest.raises(ValueError, match="contains a row outside its 5 memory rows"):
        kernels.in_order(memory, index)


def wide(library, kind):
    """Build BERT with GPT-2 or BERT, with head size 32."""
    torch.manual_seed(0)
    flags = {"add_cross_attention": True, "is_decoder": True}
    of_bert = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
    encoder = BertConfig(**of_bert, vocab_size=90)
    decoder = (
        GPT2Config(n_embd=64, n_head=2, n_layer=2, vocab_size=80, bos_token_id=3, eos_token_id=3, **flags)
        if kind == "gpt2"
        else BertConfig(**of_bert, vocab_size=80, **flags)
    )
    ids = {"decoder_start_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = library.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **ids)
    return library.EncoderDecoderModel(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("search", [{"num_beams": 4}, {"num_beams": 3, "length_penalty": 2.0}, {"num_beams": 1}])
def test_generation_with_kernels_gives_upstream_ids(kernels, kind, search, monkeypatch):
    ours, theirs = wide(warmstart, kind), wide(transformers, kind)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    calls = []
    for name in ("attend", "product"):
        original = getattr(CpuKernels, name)
        monkeypatch.setattr(
            CpuKernels, name, lambda *args, name=name, original=original: calls.append(name) or original(*args)
        )
    source = torch.randint(5, 90, (3, 21), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(source)
    mask[1, 9:] = 0
    asked = search | {"min_new_tokens": 12, "max_new_tokens": 12, "no_repeat_ngram_size": 2}
    found = ours.generate(source, attention_mask=mask, **asked)
    assert {"attend", "product"} <= set(calls)
    assert torch.equal(found, theirs.generate(source, attention_mask=mask, **asked))


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    cpu_kernels.cache_clear()
    yield tmp_path / f"kernels-{os.getuid()}"
    cpu_kernels.cache_clear()


def compiler_that(tmp_path, monkeypatch, script):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "g++"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_kernels_can_be_disabled(empty_cache, monkeypatch):
    monkeypatch.setenv("WARMSTART_KERNELS", "0")
    assert not build_cpu_kernels()
    assert cpu_kernels() is None
    query, key, value = drawn((1, 2, 3, 20), 32, torch.float32)
    with torch.no_grad():
        assert gap(attend(query, key, value, None), wanted(query, key, value, None, 32**-0.5)) < 1e-5


def test_kernels_are_compiled_once_with_one_log_line(kernels, empty_cache, caplog):
    caplog.set_level(logging.INFO, logger=module.__name__)
    assert build_cpu_kernels()
    assert [record.message for record in caplog.records if "Compiling CPU kernels" in record.message] == caplog.messages
    (library,) = empty_cache.glob("*.so")
    assert stat.S_IMODE(empty_cache.stat().st_mode) == 0o700
    made = library.stat().st_mtime_ns
    cpu_kernels.cache_clear()
    assert cpu_kernels() is not None
    assert build_cpu_kernels()
    assert len(caplog.messages) == 1
    assert library.stat().st_mtime_ns == made
    empty_cache.chmod(0o777)  # other users could have replaced the library
    cpu_kernels.cache_clear()
    assert cpu_kernels() is None
    assert not build_cpu_kernels()


@pytest.mark.parametrize("search", [{"num_beams": 1}, {"num_beams": 4}])
def test_generate_starts_no_compiler_and_writes_no_file(search, empty_cache, monkeypatch, tmp_path):
    started = tmp_path / "started"
    compiler_that(tmp_path, monkeypatch, f"touch {started}; exit 1")
    before = sorted(tmp_path.rglob("*"))
    wide(warmstart, "gpt2").generate(torch.randint(5, 90, (2, 9)), max_new_tokens=4, **search)
    assert sorted(tmp_path.rglob("*")) == before


def test_generate_uses_kernels_built_by_an_earlier_process(kernels, monkeypatch):
    cpu_kernels.cache_clear()  # as in a new process
    monkeypatch.setenv("PATH", "")  # no compiler
    calls = []
    original = CpuKernels.attend
    monkeypatch.setattr(CpuKernels, "attend", lambda *args: calls.append(args) or original(*args))
    wide(warmstart, "gpt2").generate(torch.randint(5, 90, (2, 9)), max_new_tokens=4)
    assert calls


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo clang version 19", "is not GCC"),
        ("exit 3", "exit status 3"),
        (
            'case $1 in --version) echo Free Software Foundation;; *) echo "no such flag" >&2; exit 1;; esac',
            "no such flag",
        ),
    ],
)
def test_failing_compiler_is_not_an_error(kernels, script, reason, empty_cache, monkeypatch, tmp_path, caplog):
    compiler_that(tmp_path, monkeypatch, script)
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        assert not build_cpu_kernels()
    assert reason in caplog.text
    assert not list(empty_cache.glob("*.so"))
    assert cpu_kernels() is None


def test_without_a_compiler_there_are_no_kernels(empty_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not build_cpu_kernels()
    assert cpu_kernels() is None


def test_corrupt_library_is_not_an_error(kernels, empty_cache, caplog):
    library = module._library()
    library.parent.mkdir(mode=0o700)
    library.write_bytes(b"no library")
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        assert cpu_kernels() is None
    assert "cannot be loaded" in caplog.text
