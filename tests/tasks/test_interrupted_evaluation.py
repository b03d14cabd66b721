"""An evaluation that is killed goes on where it was, and ends as if nothing had happened."""

import json
from pathlib import Path

import pytest

from warmstart.evaluation.resumable import KeptSummaries
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import evaluate, fit

CHOICES = ["debug=tiny", "data.evaluation_max_tokens=160"]


@pytest.mark.parametrize("search", ["generation=greedy", "generation.do_sample=true"])
def test_killed_half_way_it_goes_on_with_the_same_summaries(search, settings_of, run_py, tmp_path):
    fit.run(settings_of(*CHOICES), tmp_path / "run")
    command = [*CHOICES, search, "task=evaluate", f"ckpt={tmp_path / 'run'}"]
    whole = settings_of(*command)
    evaluate.run(whole, tmp_path / "whole")
    assert RunDir(tmp_path / "whole").read_result()["summaries"] == {"generated": 8, "from_an_interrupted_run": 0}

    command += [f"output_root={tmp_path}", "name=killed", f"data.cache_dir={tmp_path / 'cache'}"]
    ended = run_py(*command, cwd=tmp_path, script=Path(__file__).with_name("killed_evaluation.py"))
    assert ended.returncode == -9, ended.stderr
    [kept] = (tmp_path / "cache" / "summaries").glob("*.jsonl")
    finished = kept.read_text().count("\n")
    assert 0 < finished < 8
    assert not kept.read_text().endswith("\n")

    evaluate.run(whole, tmp_path / "again")
    result = RunDir(tmp_path / "again").read_result()
    assert result["summaries"] == {"generated": 8 - finished, "from_an_interrupted_run": finished}
    assert (tmp_path / "again" / "predictions.jsonl").read_text() == (
        tmp_path / "whole" / "predictions.jsonl"
    ).read_text()
    assert result["metrics"] == RunDir(tmp_path / "whole").read_result()["metrics"]
    assert not list((tmp_path / "cache" / "summaries").iterdir())


def test_other_searches_and_texts_have_summaries_of_their_own(settings_of, tmp_path, monkeypatch):
    names = []
    opened = KeptSummaries.__init__
    monkeypatch.setattr(
        KeptSummaries, "__init__", lambda self, path, rank: (names.append(path.name), opened(self, path))[1]
    )
    fit.run(settings_of(*CHOICES), tmp_path / "run")
    for words in ([], [], ["generation.num_beams=2"], ["data.max_source_length=20"], ["data.limit_test=4"]):
        evaluate.run(settings_of(*CHOICES, *words, f"ckpt={tmp_path / 'run'}"), tmp_path / "out")
    assert len(names) == 6
    assert names[0] == names[1] == names[2]
    assert len(set(names)) == 4


def test_half_lines_go_and_only_one_process_keeps(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('[0, "a"]\n[1, "b\\nc"]\n[2, "' + "d" * 200)
    kept = KeptSummaries(path)
    assert kept.done == {0: "a", 1: "b\nc"}
    other = KeptSummaries(path)
    assert other.done == {}
    other.add([7], ["not kept"])
    kept.add([2, 3], ["d", "e\u2028f"])
    kept.close(complete=False)
    assert [json.loads(line)[0] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    last = KeptSummaries(path)
    assert last.done == {0: "a", 1: "b\nc", 2: "d", 3: "e\u2028f"}
    last.close(complete=True)
    assert not path.exists()


def test_ranks_have_files_of_their_own_and_read_all(tmp_path):
    path = tmp_path / "x.jsonl"
    ranks = [KeptSummaries(path, rank) for rank in range(3)]
    for rank, kept in enumerate(ranks):
        kept.add([rank], [f"of rank {rank}"])
        kept.close(complete=False)
    one = KeptSummaries(path)  # goes on alone
    assert one.done == {rank: f"of rank {rank}" for rank in range(3)}
    other = KeptSummaries(path, 2)  # of another process
    one.close(complete=True)
    assert [file.name for file in sorted(tmp_path.glob("*.jsonl"))] == ["x.2.jsonl"]
    other.close(complete=True)
    assert not list(tmp_path.iterdir())
