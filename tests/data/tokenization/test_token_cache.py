"""The token cache: its contents, its reuse, and that it is complete or absent."""

import json
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from warmstart.cache import cache_root
from warmstart.data.build_once import build_once
from warmstart.data.sources.base import Example
from warmstart.data.sources.synthetic import read_synthetic
from warmstart.data.tokenization import cache as token_cache
from warmstart.data.tokenization.cache import tokenized_split
from warmstart.data.tokenization.source_layout import SourceLayout
from warmstart.errors import UserError

EXAMPLES = read_synthetic(None)[0]["train"]


def tokenize(pair, examples=EXAMPLES, fingerprint="texts", **kwargs):
    options = {"layout": SourceLayout(40), "max_target_length": 12} | kwargs
    return tokenized_split(examples, pair, name="train", texts_fingerprint=fingerprint, **options)


def folders(tmp_path):
    return sorted(p for p in (tmp_path / "cache" / "tokens").iterdir() if p.is_dir())


def test_examples_equal_the_ids_of_the_pair(pair):
    split = tokenize(pair)
    sources = pair.encode_sources([e.document for e in EXAMPLES], 40)
    targets = pair.encode_targets([e.summary for e in EXAMPLES], 12)
    assert len(split) == 32
    for i, (index, source, target) in enumerate(split):
        assert (index, source.tolist(), target.tolist()) == (i, sources[i], targets[i])
    assert split.source_lengths.tolist() == list(map(len, sources))
    assert split.target_lengths.tolist() == list(map(len, targets))
    assert all(row[-1] == pair.special_ids()["eos_token_id"] for _, _, row in split)
    assert max(split.target_lengths) == 12  # some were truncated and still have an end token


def test_more_texts_than_one_chunk(pair):
    examples = [Example(str(i), f"document {i}", f"summary {i}") for i in range(2301)]
    split = tokenize(pair, examples)
    assert len(split) == 2301
    for i in (0, 999, 1000, 2300):
        assert pair.decode([split[i][2].tolist()]) == [f"summary {i}"]


def test_the_second_run_reads_the_cache_and_logs_that(pair, caplog):
    caplog.set_level("INFO")
    first = tokenize(pair)
    assert "tokenized 32 train examples in" in caplog.text
    assert "from the token cache" not in caplog.text
    pair.encode_sources = pair.encode_targets = None  # a second tokenization would call them
    caplog.clear()
    assert tokenize(pair).folder == first.folder
    assert caplog.messages == [f"read 32 train examples from the token cache: {first.folder}"]


def test_ids_are_memory_mapped_int32_and_pickle_as_a_path(pair):
    split = tokenize(pair)
    raw = np.load(split.folder / "source_ids.npy", mmap_mode="r")
    assert isinstance(raw, np.memmap)
    assert raw.dtype == np.int32
    assert len(raw) == split.source_lengths.sum()
    assert len(pickle.dumps(split)) < 1000
    assert pickle.loads(pickle.dumps(split))[5][1].tolist() == split[5][1].tolist()
    with pytest.raises(IndexError):
        split[32]


def test_the_second_run_reads_what_the_first_wrote(pair, tmp_path, monkeypatch):
    folder = tokenize(pair).folder
    written = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    monkeypatch.setattr(type(pair), "encode_sources", lambda *_: pytest.fail("tokenized again"))
    again = tokenize(pair)
    assert again.folder == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == written
    assert json.loads((folder / "meta.json").read_text())["examples"] == 32


def test_each_setting_has_its_own_folder(pair, family_pair, tmp_path):
    tokenize(pair)
    tokenize(pair, fingerprint="other texts")
    tokenize(pair, layout=SourceLayout(41))
    tokenize(pair, max_target_length=13)
    tokenize(family_pair)
    assert len(folders(tmp_path)) == 5


@pytest.mark.parametrize("name", ["source_ids.npy", "target_offsets.npy"])
@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"\x93NUMPY\x01\x00")])
def test_a_file_lost_while_the_cache_is_used_is_named(pair, name, spoil):
    split = tokenize(pair)
    spoil(split.folder / name)
    with pytest.raises(UserError, match=r"The token cache .* is damaged"):
        pickle.loads(pickle.dumps(split))  # as a loader's worker opens it
    assert len(tokenize(pair)) == 32  # the same command rebuilds it


@pytest.mark.parametrize("content", ["[]", "{", "3", "\udcff"])
def test_a_damaged_list_of_files_rebuilds_the_folder(tmp_path, content):
    builds = []
    for _ in range(2):
        build_once(tmp_path / "x", builds.append)
        (tmp_path / "x" / "files.json").write_text(content, errors="surrogateescape")
    assert len(builds) == 2


def test_a_failure_leaves_nothing(pair, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(type(pair), "encode_targets", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tokenize(pair)
    assert folders(tmp_path) == []
    assert len(tokenize(pair)) == 32


def test_the_files_of_a_killed_process_are_removed(tmp_path):
    left = tmp_path / ".x.partial"
    left.mkdir()
    (left / "half").write_text("half")
    build_once(tmp_path / "x", lambda folder: (folder / "file").write_text("whole"))
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"x"}
    assert (tmp_path / "x" / "file").read_text() == "whole"


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("")])
def test_a_folder_with_deleted_files_is_rebuilt(tmp_path, spoil):
    builds = []

    def build(folder):
        builds.append(folder)
        (folder / "in").mkdir()
        (folder / "in" / "file").write_text("whole")

    for _ in range(2):
        folder = build_once(tmp_path / "x", build)
    assert len(builds) == 1
    (folder / "of a reader").write_text("")
    assert len(builds) == 1
    spoil(folder / "in" / "file")
    assert (build_once(tmp_path / "x", build) / "in" / "file").read_text() == "whole"
    assert len(builds) == 2
    spoil(folder / "files.json")
    build_once(tmp_path / "x", build)
    assert len(builds) == 3


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from warmstart.data.build_once import build_once

def build(partial):
    print("built")
    (partial / "first").write_text("1")
    time.sleep(0.5)
    (partial / "second").write_text("2")

folder = build_once(Path(sys.argv[1]), build)
assert {p.name for p in folder.iterdir()} == {"first", "second", "files.json"}
"""


def test_one_of_many_processes_builds(tmp_path):
    command = [sys.executable, "-c", BUILD_SLOWLY, str(tmp_path / "x")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert printed.count("built\n") == 1


def test_no_process_sees_an_incomplete_folder(tmp_path):
    seen, done = [], threading.Event()

    def watch():
        while not done.is_set():
            if (tmp_path / "x").exists():
                seen.append(len(list((tmp_path / "x").iterdir())))

    def build(partial):
        for i in range(5):
            (partial / str(i)).write_text("x")
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    build_once(tmp_path / "x", build)
    time.sleep(0.02)
    done.set()
    watcher.join()
    assert set(seen) == {6}  # and the list of files


def test_cache_root(monkeypatch, tmp_path):
    assert cache_root(str(tmp_path)) == tmp_path
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("WARMSTART_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "warmstart"


TOKENIZE = """
import logging, os, signal, sys
from warmstart.data.tokenization import cache as token_cache
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.config.data import DataKind, DataSettings
from warmstart.data.tokenization.pair import TokenizerPair

logging.basicConfig(level=logging.INFO)
token_cache._TEXTS_AT_A_TIME = 8
if sys.argv[2] == "killed":
    append, calls = token_cache._RowsWriter.append, []

    def dies(self, rows):
        append(self, rows)
        calls.append(rows)
        if len(calls) == 5:
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    token_cache._RowsWriter.append = dies
settings = DataSettings(name="written", kind=DataKind.written, cache_dir=sys.argv[1])
data = SummarizationDataModule(settings, TokenizerPair.load(sys.argv[3]), seed=0)
data.prepare_data()
print(data.row_counts()["train"]["kept"])
"""


def tokenizing(tmp_path, pair, how):
    pair.save(tmp_path / "pair")
    command = [sys.executable, "-c", TOKENIZE, str(tmp_path / "cache"), how, str(tmp_path / "pair")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_share_one_cache(pair, tmp_path):
    processes = [tokenizing(tmp_path, pair, "to the end") for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in ended] == ["32\n"] * 2, ended
    assert sum(log.count("tokenized ") for _, log in ended) == 3  # each split once
    assert len(folders(tmp_path)) == 3


@pytest.mark.slow
def test_a_killed_tokenizer_leaves_nothing_that_looks_whole_and_no_lock_that_holds(pair, tmp_path):
    killed = tokenizing(tmp_path, pair, "killed")
    killed.communicate(timeout=120)
    assert killed.returncode == -9
    assert [folder.name.endswith(".partial") for folder in folders(tmp_path)] == [True]
    assert list((tmp_path / "cache" / "tokens").glob("*.lock"))
    next_one = tokenizing(tmp_path, pair, "to the end")
    assert next_one.communicate(timeout=120)[0] == "32\n"
    assert len(folders(tmp_path)) == 3
    train = next(folder for folder in folders(tmp_path) if folder.name.startswith("train-"))
    undisturbed = tokenize(pair, fingerprint="other", layout=SourceLayout(512), max_target_length=128)
    for name in ("source_ids", "source_offsets", "target_ids", "target_offsets"):
        assert (train / f"{name}.npy").read_bytes() == (undisturbed.folder / f"{name}.npy").read_bytes()


def test_cache_root_of_a_user_without_a_home(monkeypatch):
    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "WARMSTART_CACHE"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(UserError, match=r"no home directory is known\. Set \$HOME or \$WARMSTART_CACHE"):
        cache_root()


def test_long_texts_are_tokenized_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(token_cache, "_CHARACTERS_AT_A_TIME", 10)
    examples = [Example(str(i), "a" * length, "b") for i, length in enumerate([2, 3, 4, 100, 1])]
    assert [[len(one.document) for one in some] for some in token_cache._chunks(examples)] == [[2, 3, 4], [100], [1]]
    assert list(token_cache._chunks([])) == []
