"""What ``task=demo`` needs is reported before the model is loaded; the page itself is tested in tests/page."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from warmstart.errors import UserError
from warmstart.tasks import demo, fit


def test_numbers_and_steps_that_cannot_work_are_refused_before_the_model_is_loaded(settings_of, tmp_path):
    chosen = ["task=demo", f"ckpt={tmp_path / 'absent'}"]
    with pytest.raises(UserError, match=r"generation\.num_beams=0") as refused:
        demo.run(settings_of(*chosen, "generation.num_beams=0", "generation.max_new_tokens=0"), tmp_path)
    assert "generation.max_new_tokens=0" in str(refused.value)
    with pytest.raises(UserError, match="no_such_step"):
        demo.run(settings_of(*chosen, "data.clean=[no_such_step]"), tmp_path)


def test_what_it_needs_is_reported(settings_of, tmp_path, monkeypatch):
    assert settings_of().host == "127.0.0.1"
    with pytest.raises(UserError, match="ckpt="):
        demo.run(settings_of("task=demo"), tmp_path)
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape("pip install '.[demo]'")):
        demo.run(settings_of("task=demo", f"ckpt={tmp_path / 'absent'}"), tmp_path)


def test_a_model_that_does_not_exist_and_a_port_in_use_are_reported(settings_of, tmp_path):
    if "CI" not in os.environ:
        pytest.importorskip("gradio")
    absent = ["task=demo", f"ckpt={tmp_path / 'absent'}", f"output_root={tmp_path}"]
    with pytest.raises(UserError, match="there is no such file or folder"):
        demo.run(settings_of(*absent, "port=0"), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match="Set another port="):
        demo.run(settings_of(*absent, f"port={other.getsockname()[1]}"), tmp_path)


def test_the_command_serves_the_page_until_ctrl_c(settings_of, tmp_path):
    if "CI" not in os.environ:
        pytest.importorskip("gradio")
    fit.run(settings_of("debug=tiny"), tmp_path / "own")
    run_py = Path(__file__).parents[2] / "run.py"
    command = [sys.executable, run_py, "task=demo", f"ckpt={tmp_path / 'own'}", "port=0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ \(stop with Ctrl-C\)\n", server.stdout.readline())
            assert found, server.stderr.read()
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
            connection.request("GET", "/")
            page = connection.getresponse().read().decode()
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=60)
        finally:
            server.kill()
    assert "Encoder bert, decoder gpt2" in page
    assert "googleapis" not in page
    assert server.returncode == 128 + signal.SIGINT
    assert "Traceback" not in errors
