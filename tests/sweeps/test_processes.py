"""Jobs side by side (``hydra/launcher=joblib``): a lost process fails its job only, and none outlives its driver."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RUN = Path(__file__).parents[2] / "run.py"
SIDE_BY_SIDE = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "debug=tiny", "name=s")
ENDLESS = ("trainer.max_epochs=1000000", "trainer.max_steps=-1", "trainer.validations_per_epoch=1")


def in_two_fits(tmp_path) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A sweep of two endless fits, each of which has a checkpoint, and all of its processes."""
    command = [sys.executable, RUN, *SIDE_BY_SIDE, *ENDLESS, "seed=1,2"]
    with (tmp_path / "out").open("w") as out:
        sweep = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
    jobs = tmp_path / "runs" / "multirun" / "s"
    while len(list(jobs.glob("*/checkpoints/last.ckpt"))) < 2:
        assert sweep.poll() is None, (tmp_path / "out").read_text()
        time.sleep(0.2)
    return sweep, psutil.Process(sweep.pid).children(recursive=True)


def statuses(tmp_path) -> dict[int, str]:
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "multirun" / "s").glob("*/result.json")]
    return {result["seed"]: result["status"] for result in found}


def end(sweep, processes) -> None:
    for process in (*processes, sweep):
        if process.poll() is None if process is sweep else process.is_running():
            process.kill()
    sweep.wait()


@pytest.mark.slow
def test_jobs_save_and_exit_when_their_parent_is_killed(tmp_path):
    sweep, processes = in_two_fits(tmp_path)
    try:
        sweep.kill()
        sweep.wait()
        assert psutil.wait_procs(processes, timeout=50)[1] == []
        assert statuses(tmp_path) == {1: "interrupted", 2: "interrupted"}
    finally:
        end(sweep, processes)


@pytest.mark.slow
def test_a_killed_job_does_not_stop_the_others_and_a_signal_ends_all(tmp_path):
    sweep, processes = in_two_fits(tmp_path)
    try:
        first = next(p for p in processes if any("cli.log" in f.path and seed_of(f.path) == 1 for f in p.open_files()))
        first.kill()
        said = tmp_path / "out"
        while "A job died" not in said.read_text():
            assert sweep.poll() is None
            time.sleep(0.2)
        died = next(line for line in said.read_text().splitlines() if "A job died" in line)
        assert "seed=1" in died
        assert "SIGKILL" in died
        assert sweep.poll() is None
        sweep.send_signal(signal.SIGTERM)
        assert sweep.wait(timeout=60) == 128 + signal.SIGTERM, said.read_text()
        assert psutil.wait_procs(processes, timeout=10)[1] == []
        assert statuses(tmp_path) == {2: "interrupted"}
        assert "Traceback" not in said.read_text()
    finally:
        end(sweep, processes)


def seed_of(log: str) -> int:
    words = (Path(log).parent / ".hydra" / "overrides.yaml").read_text()
    return 1 if "seed=1" in words else 2


def test_options_of_joblibs_pool_are_refused_and_named(run_py, tmp_path):
    for option in ("hydra.launcher.verbose=10", "hydra.launcher.n_jobs=0"):
        outcome = run_py(*SIDE_BY_SIDE, option, "seed=1,2", cwd=tmp_path)
        assert outcome.returncode == 2, outcome.stderr
        assert option.partition("=")[0] in outcome.stderr
        assert "Traceback" not in outcome.stderr
