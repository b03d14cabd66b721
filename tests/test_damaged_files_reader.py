"""Readers of a run's files return the content or report a damaged file; they never raise another error or block."""

import os

import pytest

from warmstart.damaged_files import DamagedFile, read_csv, read_json, read_json_lines, read_yaml

NESTED = 5000


def damages(path):
    """Yield names of damages, each with the function that does it."""
    yield "empty", lambda: path.write_text("")
    yield "not UTF-8", lambda: path.write_bytes(b"\xff\xfe{}")
    yield "NUL", lambda: path.write_bytes(b"\0" * 9)
    yield "a folder", path.mkdir
    yield "a pipe", lambda: os.mkfifo(path)
    yield "a link to itself", lambda: path.symlink_to(path)
    yield "a device", lambda: path.symlink_to("/dev/zero")


WAYS = ["empty", "not UTF-8", "NUL", "a folder", "a pipe", "a link to itself", "a device"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read", [read_json, read_yaml, read_json_lines, read_csv])
def test_a_damaged_file_is_named_by_every_reader(tmp_path, read, way):
    path = tmp_path / "left"
    dict(damages(path))[way]()
    grows = read in (read_json_lines, read_csv)
    if (way == "empty" and grows) or (read is read_csv and way in ("not UTF-8", "NUL")):
        assert not read(path)
        return
    with pytest.raises(DamagedFile, match=f"^{path} is damaged "):
        read(path)


@pytest.mark.parametrize(
    "text",
    ["[]", "NaN", "1", "null", '{"a": ', "[" * NESTED, '{"a":' * 99 + "1" + "}" * 99, '{"a": 1' + "0" * 400 + "}"],
)
def test_json_that_is_not_an_object_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DamagedFile):
        read_json(path)
    path.write_text("{}\n" + text)
    with pytest.raises(DamagedFile, match="line 2"):
        read_json_lines(path)


def test_nonfinite_numbers_are_read_as_none(tmp_path):
    (tmp_path / "x.json").write_text('{"a": NaN, "b": [Infinity, 1e999, 1.5]}')
    assert read_json(tmp_path / "x.json") == {"a": None, "b": [None, None, 1.5]}


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "a",
        "1",
        "a: [",
        "a: 'b",
        "\tb",
        "? [a]\n: b\n- c",
        "{" * NESTED,
        "a: !!bool x",
        "a: !!python/name:os.system",
    ],
)
def test_yaml_that_is_not_a_mapping_is_named(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(DamagedFile):
        read_yaml(tmp_path / "x.yaml")


def test_aliases_are_not_expanded(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(DamagedFile, match="alias"):
        read_yaml(tmp_path / "x.yaml")


def test_yaml_is_read_without_interpolation(tmp_path, monkeypatch):
    from omegaconf import OmegaConf

    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    written = {"lr": 1e-05, "big": 1e20, "half": 0.5, "n": 3, "on": True, "none": None, "day": "2020-01-01", "one": "1"}
    written |= {"secret": "${oc.env:HF_TOKEN}", "list": ["a", 1.0]}
    (tmp_path / "x.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(written)))
    assert read_yaml(tmp_path / "x.yaml") == written
