"""Escape sequences in names, columns, headers and documents reach no terminal."""

import pytest

EVIL = "\x1b[2Jevil\u202e\x9b"


@pytest.mark.parametrize("case", ["a column", "a name of a file", "a setting of an export", "a recorded failure"])
def test_data_in_messages_is_escaped(case, run_py, tmp_path, monkeypatch):
    if case == "a column":
        (tmp_path / "x.csv").write_text(f"document,{EVIL}\na,b\n", encoding="utf-8")
        words = ["debug=tiny", "data=files", "data.path=x.csv", "name=x"]
    elif case == "a name of a file":
        (tmp_path / f"{EVIL}.csv").write_text("document,nothing\na,b\n")
        words = ["debug=tiny", "data=files", f"data.path={EVIL}.csv", "name=x"]
    elif case == "a setting of an export":
        (tmp_path / "e").mkdir()
        (tmp_path / "e" / "config.json").write_text("{}")
        (tmp_path / "e" / "run_config.yaml").write_text('data: {"\\e[2Jevil\\u202e\\x9b": 1}\n')
        words = ["task=summarize", "ckpt=e", "input=e/config.json"]
    else:
        job = tmp_path / "runs" / "multirun" / "s" / "evil" / ".hydra"
        job.mkdir(parents=True)
        (job / "config.yaml").write_text("task: fit\n")
        (job / "overrides.yaml").write_text('- "name=\\e[2Jevil\\u202e\\x9b"\n')
        words = ["-m", "debug=tiny", "name=s", "trainer.validations_per_epoch=0"]
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    ended = run_py(*words, cwd=tmp_path)
    said = ended.stdout + ended.stderr
    assert ended.returncode in (1, 2), said
    assert "evil" in said
    assert "Traceback" not in said
    assert not set(said) & set("\x1b\u202e\x9b")
