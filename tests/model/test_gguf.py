"""Corrupt and truncated GGUF files are refused; an incomplete conversion is repeated."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from warmstart.errors import UserError
from warmstart.model.gguf import converted

FAULTS = Path(__file__).parents[1] / "faults"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The bytes of a tiny GGUF file."""
    pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    program = f"import sys; sys.path.insert(0, {str(FAULTS)!r}); import tiny_gguf, pathlib; "
    subprocess.run(
        [sys.executable, "-c", f"{program} tiny_gguf.write_tiny_gguf(pathlib.Path({str(path)!r}))"], check=True
    )
    return path.read_bytes()


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """A function that converts a file with the given content and returns the folder."""
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))

    def convert(content):
        (tmp_path / "x.gguf").write_bytes(content)
        return converted(tmp_path / "x.gguf")

    return convert


def test_truncated_file_is_refused(tiny, convert):
    for length in (0, 3, 4, 8, 20, 24, 100, 1000, len(tiny) // 2, len(tiny) - 4096, len(tiny) - 1):
        with pytest.raises(UserError, match=r"x\.gguf cannot be read as GGUF"):
            convert(tiny[:length])


def test_array_length_beyond_the_end_is_refused_at_once(tiny, convert):
    # The length of the array of token types: the reader would append empty arrays 2**56 times.
    start = tiny.index(b"tokenizer.ggml.token_type") + len(b"tokenizer.ggml.token_type") + 4 + 4
    damaged = bytearray(tiny)
    damaged[start + 7] = 1
    with pytest.raises(UserError, match="beyond its end"):
        convert(bytes(damaged))


def test_corrupt_header_is_read_or_refused(tiny, convert):
    seeded = random.Random(0)
    end = tiny.index(b"tokenizer.ggml.tokens")
    named = []
    for _ in range(12):
        damaged = bytearray(tiny)
        damaged[seeded.randrange(end)] = seeded.randrange(256)
        try:
            convert(bytes(damaged))
        except UserError as error:
            named.append(str(error))
    assert named
    assert all("cannot be read as GGUF" in message for message in named)


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json", "config.json"])
def test_incomplete_conversion_is_repeated(tiny, convert, lost):
    folder = convert(tiny)
    content = (folder / lost).read_bytes()
    (folder / lost).unlink()
    assert convert(tiny) == folder
    assert (folder / lost).read_bytes() == content
