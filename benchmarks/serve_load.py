"""Load the service of task=serve on this machine: one client, then many, and the memory of all its processes.

    python benchmarks/serve_load.py --ckpt runs/demo --clients 64 --seconds 60

Starts ``run.py task=serve`` itself (further words are passed on: serve.max_batch_tokens=8192). Each client sends the
next text as soon as it has its summary. The texts have one to twelve sentences, 18 to 216 words.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[1]
SENTENCE = "The council of town {} met on day {} and voted to close the library near the river."
WARM_UP = 15.0  # seconds with all clients that are not counted: the largest batch takes memory once
BATCHES = ("warmstart_batch_requests_sum", "warmstart_batch_requests_count")


def start(words: list[str], log: Path) -> tuple[subprocess.Popen, str]:
    """Start the service, and return its process and URL."""
    command = [sys.executable, str(ROOT / "run.py"), "task=serve", "serve.port=0", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    while not (found := re.search(r"(http://[^/]+)/docs", log.read_text())):
        if process.poll() is not None:
            sys.exit(log.read_text())
        time.sleep(0.2)
    return process, found[1]


def resident(process: subprocess.Popen) -> float:
    """Return the resident memory of the service's processes together, in MB; shared pages count in each."""
    root = psutil.Process(process.pid)
    return sum(one.memory_info().rss for one in (root, *root.children(recursive=True))) / 1e6


async def load(url: str, clients: int, seconds: float) -> tuple[list[float], list[str]]:
    """Return the seconds of each request that ended in time, and the errors."""
    took: list[float] = []
    errors: list[str] = []
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as session:
            request = number
            while time.perf_counter() < until:
                text = " ".join(SENTENCE.format(request, i) for i in range(1 + request * 7 % 12))
                began = time.perf_counter()
                try:
                    response = await session.post("/summarize", json={"text": text})
                except httpx.HTTPError as error:
                    errors.append(repr(error))
                else:
                    if response.status_code == 200:
                        took.append(time.perf_counter() - began)
                    else:
                        errors.append(f"{response.status_code} {response.text}")
                request += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    return took, errors


def batches(url: str) -> list[float]:
    """Return how many requests were in batches, and how many batches there were."""
    counts = httpx.get(f"{url}/metrics").text
    return [float(re.search(rf"^{name} (\S+)", counts, re.MULTILINE)[1]) for name in BATCHES]


def quantile(values: list[float], share: float) -> float:
    """Return the value that a share of the sorted values does not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def report(clients: int, seconds: float, took: list[float], errors: list[str]) -> float:
    """Print a line of the table, and return the summaries per second."""
    rate = len(took) / seconds
    p50, p99 = (1000 * quantile(took, share) for share in (0.5, 0.99))
    print(f"| {clients} | {len(took)} | {len(errors)} | {p50:.0f} | {p99:.0f} | {rate:.1f} |", flush=True)
    for error in sorted(set(errors))[:5]:
        print(error, file=sys.stderr)
    return rate


def main() -> None:
    """Print a table: one client (the peer), many clients, the ratio of their rates, and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    chosen, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        process, url = start([f"ckpt={chosen.ckpt}", *words], Path(folder) / "serve.log")
        try:
            print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            asyncio.run(load(url, chosen.clients, WARM_UP))
            memory = [resident(process)]
            print("| clients | summaries | errors | p50, ms | p99, ms | summaries/s |\n|---|---|---|---|---|---|")
            rates = []
            for clients in (1, chosen.clients):
                began = time.perf_counter()
                before = batches(url)
                took, errors = asyncio.run(load(url, clients, chosen.seconds))
                rates.append(report(clients, time.perf_counter() - began, took, errors))
                memory.append(resident(process))
            print(f"ratio of summaries/s: {rates[1] / rates[0]:.1f}")
            names = ("after the warm-up", "after one client", f"after {chosen.clients}")
            print("memory, MB: " + ", ".join(f"{name} {value:.0f}" for name, value in zip(names, memory, strict=True)))
            print(f"load average at the end: {os.getloadavg()[0]:.1f}")
            requests, count = (now - then for now, then in zip(batches(url), before, strict=True))
            print(f"mean batch with {chosen.clients} clients: {requests / count:.1f} requests")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


if __name__ == "__main__":
    main()
