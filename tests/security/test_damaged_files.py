"""A checkpoint, an export or a tokenizer that is damaged, of other shapes or of another vocabulary: one named error."""

import json
import os
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError
from warmstart.runs.load import load_trained

# A longer run, for a maintainer: FUZZ_EXAMPLES=2000 python -m pytest tests/security/test_damaged_files.py
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
some = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
damages = st.tuples(
    st.floats(0, 1), st.booleans(), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4)
)


def damaged(content, damage):
    length, cut, changes = damage
    content = bytearray(content[: int(length * len(content))] if cut else content)
    for place, value in changes:
        if content:
            content[int(place * (len(content) - 1))] = value
    return bytes(content)


@pytest.fixture(scope="module")
def copy(tiny_run, tmp_path_factory):
    """A copy of the run whose files the tests overwrite."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(tiny_run, folder)
    (folder / "checkpoints" / "SHA256SUMS").unlink()  # with it no damage would reach the reader
    return folder


@some
@given(damages)
def test_a_damaged_checkpoint_loads_or_is_named(tiny_run, copy, damage):
    file = copy / "checkpoints" / "best.ckpt"
    file.unlink(missing_ok=True)  # a file that is mapped into memory must not shrink
    file.write_bytes(damaged((tiny_run / "checkpoints" / "best.ckpt").read_bytes(), damage))
    try:
        load_trained(str(copy))
    except UserError as error:
        assert "best.ckpt" in str(error)  # noqa: PT017


@some
@given(damages, st.sampled_from(["model.safetensors", "config.json", "generation_config.json"]))
def test_a_damaged_export_loads_or_is_named(tiny_run, copy, damage, name):
    shutil.rmtree(copy / "export")
    shutil.copytree(tiny_run / "export", copy / "export")
    file = copy / "export" / name
    file.unlink()
    file.write_bytes(damaged((tiny_run / "export" / name).read_bytes(), damage))
    try:
        load_trained(str(copy / "export"))
    except UserError as error:
        assert "export" in str(error)  # noqa: PT017


@some
@given(
    damages,
    st.sampled_from(["tokenizer_pair.json", "encoder_tokenizer/tokenizer.json", "tokenizer.json"]),
)
def test_a_damaged_pair_of_tokenizers_loads_or_is_named(tiny_run, copy, damage, name):
    home = copy / "checkpoints" / "tokenizers"
    shutil.rmtree(home)
    shutil.copytree(tiny_run / "checkpoints" / "tokenizers", home)
    (home / name).write_bytes(damaged((home / name).read_bytes(), damage))
    try:
        TokenizerPair.load(home)
    except UserError as error:
        assert "tokenizer" in str(error)  # noqa: PT017


@pytest.mark.parametrize("change", ["shape", "missing", "vocabulary"])
def test_weights_and_tokenizers_of_another_model(tiny_run, tmp_path, change):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "checkpoints" / "SHA256SUMS").unlink()  # a checkpoint that is whole, but does not fit
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    weights = load_file(run / "export" / "model.safetensors")
    name = "decoder.transformer.wpe.weight"
    if change == "shape":
        checkpoint["state_dict"][f"model.{name}"] = torch.zeros(3, 3)
        weights[name] = torch.zeros(3, 3)
    elif change == "missing":
        del checkpoint["state_dict"][f"model.{name}"]
        del weights[name]
    else:
        for folder in (run / "checkpoints" / "tokenizers", run / "export"):
            file = folder / "encoder_tokenizer" / "tokenizer.json"
            tokenizer = json.loads(file.read_text())
            vocabulary = tokenizer["model"]["vocab"]
            vocabulary |= {f"word{i}": len(vocabulary) + i for i in range(500)}
            file.write_text(json.dumps(tokenizer))
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    save_file(weights, run / "export" / "model.safetensors", metadata={"format": "pt"})
    said = "tokenizer has|trained with other vocabularies" if change == "vocabulary" else "is damaged"
    for path in (run, run / "export"):
        with pytest.raises(UserError, match=said):
            load_trained(str(path))
