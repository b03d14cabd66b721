"""A service from start to end: a worker that is killed, Ctrl-C, and what cannot be started."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from running_service import TEXT, started

from warmstart.api.composing import composed
from warmstart.config.schema import to_settings
from warmstart.errors import UserError
from warmstart.tasks import serve

pytest.importorskip("litserve")

from warmstart.config.serving import ServeSettings
from warmstart.serving.endpoints import CRASHED
from warmstart.serving.server import LOOPBACK, allowed_hosts


def test_a_killed_worker_is_reported_and_replaced_and_ctrl_c_ends_everything(run, tmp_path):
    with started(tmp_path, run, "serve.wait_milliseconds=1000") as service:
        for _ in range(5):  # a request that the worker has not taken yet waits for the next worker
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(service.post, "/summarize", {"text": TEXT}) for _ in range(4)]
                time.sleep(0.5)  # they wait for others to share their batch
                service.worker.kill()
                while service.get("/health").status_code == 200 and not all(one.done() for one in asked):
                    time.sleep(0.05)
            found = {(one.result().status_code, one.result().json().get("detail")) for one in asked}
            health = service.get("/health")
            if (500, CRASHED) in found:
                break
            while service.get("/health").status_code != 200:
                time.sleep(0.2)
        assert found <= {(500, CRASHED), (200, None)}
        assert (500, CRASHED) in found
        assert (health.status_code, health.text) == (503, "not ready")
        assert service.post("/summarize", {"text": TEXT}).status_code == 200  # it waits for the next worker
        assert service.get("/health").status_code == 200
        status, left = service.end(signal.SIGINT)
        assert status == 128 + signal.SIGINT
        assert left == []
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


def test_a_killed_service_leaves_no_process_and_only_allowed_hosts_are_answered(run, tmp_path):
    with started(tmp_path, run, "serve.host=127.0.0.2", "serve.allowed_hosts=['*.example.org']") as service:
        for host, status in (("a.example.org", 200), ("a.example.org:80", 200), ("evil.test", 400), ("127.0.0.2", 400)):
            answer = httpx.get(f"{service.url}/health", headers={"Host": host}, timeout=60)
            assert answer.status_code == status, host
        assert len(service.children()) >= 2
        assert service.end(signal.SIGKILL) == (-signal.SIGKILL, [])


def test_a_host_pattern_that_cannot_be_matched_is_refused():
    assert "*" in allowed_hosts(ServeSettings(host="10.0.0.1"))
    assert allowed_hosts(ServeSettings()) == [*LOOPBACK]
    assert allowed_hosts(ServeSettings(allowed_hosts=["*.example.org", "a"])) == ["*.example.org", "a", *LOOPBACK]
    for pattern in ("a*", "*a", "*.a*", "**"):
        with pytest.raises(UserError, match=r"serve\.allowed_hosts has "):
            allowed_hosts(ServeSettings(allowed_hosts=[pattern]))


def test_what_cannot_be_started_is_reported(run, settings_of, run_py, tmp_path):
    with pytest.raises(UserError, match="task=serve needs ckpt="):
        serve.run(settings_of("task=serve"), tmp_path)
    of_demo = pytest.raises(UserError, match=r"port is an option of task=demo\. Set serve\.port")
    with composed(["task=serve", f"ckpt={run.folder}", "port=1"]) as cfg, of_demo:
        serve.run(to_settings(cfg), tmp_path)
    with pytest.raises(UserError, match=r"serve\.wait_milliseconds=0 is invalid"):
        serve.run(settings_of("task=serve", f"ckpt={run.folder}", "serve.wait_milliseconds=0"), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ("task=serve", f"ckpt={run.folder}", f"serve.port={taken.getsockname()[1]}")
        outcome = run_py(*words, cwd=tmp_path)
    assert outcome.returncode == 2
    assert "cannot be opened" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    broken = tmp_path / "broken"
    (run.folder / "export").rename(broken)
    try:
        (broken / "model.safetensors").write_bytes(b"broken")
        outcome = run_py("task=serve", f"ckpt={broken}", "serve.port=0", cwd=tmp_path)
    finally:
        broken.rename(run.folder / "export")
    assert outcome.returncode == 2
    assert outcome.stderr.count("header too small") == 1
    assert "Traceback" not in outcome.stderr


def test_without_the_extra(run, settings_of, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[serve\]'"):
        serve.run(settings_of("task=serve", f"ckpt={run.folder}"), tmp_path)
