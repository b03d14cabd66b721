"""A sweep on a Ray of its own: private to the machine, asked to end as a whole, and gone afterwards."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

RUN = Path(__file__).parents[2] / "run.py"
ON_RAY = ("-m", "hydra/launcher=ray", "debug=tiny", "name=s")


def wait_for(condition, process):
    for _ in range(1500):
        if found := condition():
            return found
        assert process.poll() is None
        time.sleep(0.2)
    raise AssertionError("It did not come.")


def runs_seed_1(process) -> bool:
    logs = [Path(file.path) for file in process.open_files() if file.path.endswith("cli.log")]
    return any("seed=1" in (log.parent / ".hydra" / "overrides.yaml").read_text() for log in logs)


@pytest.mark.slow
def test_a_dead_job_does_not_stop_the_others_and_ray_ends_with_the_sweep(tmp_path):
    endless = ("trainer.max_epochs=1000000", "trainer.max_steps=-1", "trainer.validations_per_epoch=1")
    command = [sys.executable, RUN, *ON_RAY, "hydra.launcher.cpus=0.5", *endless, "seed=1,2"]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        jobs = tmp_path / "runs" / "multirun" / "s"
        wait_for(lambda: len(list(jobs.glob("*/checkpoints/last.ckpt"))) == 2, sweep)
        processes = psutil.Process(sweep.pid).children(recursive=True)
        sockets = [c for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert sockets
        for socket in sockets:
            address = ipaddress.ip_address(socket.laddr.ip)
            assert (getattr(address, "ipv4_mapped", None) or address).is_loopback
        first = next(process for process in processes if process.name() == "ray::run_one" and runs_seed_1(process))
        first.kill()
        died = next(line for line in sweep.stdout if "A job died" in line)
        assert "seed=1" in died
    finally:
        sweep.send_signal(signal.SIGTERM)
        said = sweep.communicate(timeout=120)[0]
    assert sweep.returncode == 128 + signal.SIGTERM, said
    assert psutil.wait_procs(processes, timeout=30)[1] == []
    results = [json.loads(path.read_text()) for path in jobs.glob("*/result.json")]
    assert [(result["status"], result["seed"]) for result in results] == [("interrupted", 2)]


@pytest.mark.slow
def test_requesting_more_than_the_machine_has_ends_in_one_message(run_py, tmp_path):
    outcome = run_py(*ON_RAY, "hydra.launcher.cpus=100000", "seed=1,2", cwd=tmp_path)
    assert outcome.returncode == 2
    assert f"Each job needs 100000 CPUs, but this machine has {os.cpu_count()}" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_an_address_without_a_ray_ends_in_one_message(run_py, tmp_path):
    for address in ("127.0.0.1:9", "nonsense"):
        outcome = run_py(*ON_RAY, f"hydra.launcher.address={address}", "seed=1,2", cwd=tmp_path)
        assert outcome.returncode == 2
        assert f"hydra.launcher.address={address} was requested, but no Ray answers there." in outcome.stderr
        assert "Traceback" not in outcome.stderr
