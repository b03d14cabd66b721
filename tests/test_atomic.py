"""Atomic files and folders: modes, leftovers of dead processes, concurrent writers."""

import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from warmstart.atomic import new_folder, replacing, replacing_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from warmstart.atomic import new_folder, replacing
with replacing(Path("result.json")) as file, new_folder(Path("export")) as partial:
    (partial / "begun").write_text("x")
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
"""
WRITE = """
import sys, time
from pathlib import Path
from warmstart.atomic import new_folder
try:
    with new_folder(Path("export")) as partial:
        for name in ("a", "b", "c"):
            (partial / name).write_text(sys.argv[1])
            time.sleep(0.2)
except FileExistsError as error:
    sys.exit(f"exists: {error.filename}")
"""


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
@pytest.mark.parametrize("write", [replacing_folder, new_folder])
def test_modes_follow_the_umask_whichever_library_wrote_the_file(tmp_path, write, umask, file, folder):
    before = os.umask(umask)
    try:
        with write(tmp_path / "export") as partial:
            (partial / "tokenizer").mkdir(0o700)
            save_file({"x": torch.zeros(1)}, partial / "model.safetensors")
            save_file({"x": torch.zeros(1)}, partial / "tokenizer" / "below")
        with replacing(tmp_path / "result.json") as opened:
            opened.write("{}")
    finally:
        os.umask(before)
    found = modes(tmp_path / "export")
    assert found == {"export": folder, "tokenizer": folder, "model.safetensors": file, "below": file}
    assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == file


def test_temporary_files_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path):
    command = [sys.executable, "-c", KILLED]
    assert subprocess.run([*command, "killed"], cwd=tmp_path, check=False).returncode == -9
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == 2
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "lives"], cwd=tmp_path, **pipes) as living:
        assert living.stdout.readline() == "writing\n"
        of_living = {path.name for path in tmp_path.iterdir()}
        assert len(of_living) == 2
        assert not of_living & left
        (tmp_path / ".result.json.0a1b2c3d.1.tmp").write_text("of another host")
        with replacing(tmp_path / "result.json") as file:
            file.write("{}")
        assert of_living <= {path.name for path in tmp_path.iterdir()}
        living.communicate("")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".result.json.0a1b2c3d.1.tmp", "export", "result.json"]


def test_of_two_concurrent_writers_of_a_folder_one_succeeds_and_one_fails(tmp_path):
    pipes = {"stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", WRITE, word], cwd=tmp_path, **pipes) for word in ("one", "two")]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], errors
    assert "".join(errors) == "exists: export\n"
    winner = "one" if both[0].returncode == 0 else "two"
    assert {path.read_text() for path in (tmp_path / "export").iterdir()} == {winner}
    assert len(list((tmp_path / "export").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_empty_folder_is_replaced_and_a_full_one_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as partial:
        (partial / "file").write_text("x")
    with pytest.raises(FileExistsError), new_folder(tmp_path / "empty") as partial:
        (partial / "file").write_text("y")
    assert (tmp_path / "empty" / "file").read_text() == "x"
