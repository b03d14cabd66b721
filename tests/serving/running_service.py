"""A service in a process of its own: ``run.py task=serve``."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
SEARCH = ("generation.num_beams=1", "generation.min_new_tokens=6")
TEXT = "The council of town 5 met on day 5 and voted to close the library."


class Service:
    """A running service.

    Args:
        process: The process of ``run.py``.
        url: Where it listens.
    """

    def __init__(self, process, url):
        self.process, self.url = process, url

    def post(self, path, body, **kwargs):
        return httpx.post(f"{self.url}{path}", json=body, timeout=120, **kwargs)

    def get(self, path):
        return httpx.get(f"{self.url}{path}", timeout=60)

    def lines(self, text):
        with httpx.stream("POST", f"{self.url}/stream", json={"text": text}, timeout=120) as response:
            return response.status_code, [json.loads(line) for line in response.iter_lines()]

    @property
    def worker(self):
        """The process that holds the model: the one that uses most memory of those that were spawned."""
        spawned = [one for one in self.children() if "spawn_main" in " ".join(one.cmdline())]
        return max(spawned, key=lambda one: one.memory_info().rss)

    def children(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number):
        """Send a signal, to all processes if it is Ctrl-C; return the exit status and the processes that are left."""
        started = [self.process, *self.children()]
        (os.killpg if number == signal.SIGINT else os.kill)(self.process.pid, number)
        status = self.process.wait(timeout=60)
        _, left = psutil.wait_procs([one for one in started if isinstance(one, psutil.Process)], timeout=30)
        return status, left


@contextmanager
def started(folder, run, *words):
    log = folder / "serve.log"
    command = [sys.executable, ROOT / "run.py", "task=serve", f"ckpt={run.folder}", "serve.port=0", *SEARCH, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=file, start_new_session=True, env=environment, text=True
        )
    try:
        until = time.monotonic() + 300
        while not (found := re.search(r"(http://[^/]+)/docs", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield Service(process, found[1])
    finally:
        if process.poll() is None:
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
            process.kill()
            process.wait()
