"""Measure the memory of a fit by its number of examples: reading, checking, tokenizing, batching and one training step.

    python benchmarks/load.py 10000 100000 1000000

Each number has its own process, file and cache. The peak of resident memory comes from the kernel (VmHWM). The
process's own memory is sampled ten times a second; the rest are pages of files, which the kernel can drop.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = ("bridge", "council", "harbour", "otter", "factory", "library", "mayor", "river", "station", "winter", "school")


def write_rows(path: Path, rows: int) -> None:
    """Write different short texts: documents of about 40 words, summaries of about 8."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            words = [WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(30 + i % 20)]
            row = {"document": f"Number {i}: {' '.join(words)}.", "summary": f"{words[0]} {words[1]} of number {i}."}
            file.write(json.dumps(row) + "\n")


def status(name: str) -> int:
    """Return the value of a line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def fit(folder: Path) -> None:
    """Run the fit that is measured."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from warmstart.cli.main import config_dir
    from warmstart.config.schema import register, to_settings
    from warmstart.tasks import fit

    own, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            own[0] = max(own[0], status("RssAnon"))

    threading.Thread(target=watch, daemon=True).start()
    register()
    OmegaConf.register_new_resolver("run_id", lambda: "load", replace=True)
    words = ["debug=tiny", "data=files", f"data.path={folder / 'rows.jsonl'}", f"data.cache_dir={folder / 'cache'}"]
    words += ["data.limit_train=null", "data.limit_validation=8", "data.limit_test=8", "trainer.max_steps=1"]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        settings = to_settings(compose("config", overrides=[*words, "trainer.progress_bar=false"]))
    began = time.perf_counter()
    fit.run(settings, folder / "run")
    done.set()
    print(json.dumps({"peak": status("VmHWM"), "own": own[0], "seconds": time.perf_counter() - began}))


def main() -> None:
    """Measure one number of examples, or print the table of all."""
    if sys.argv[1] == "--measure":
        fit(Path(sys.argv[2]))
        return
    print("| examples | file, MB | peak memory, MB | without file pages, MB | seconds |\n|---|---|---|---|---|")
    for rows in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder) / "rows.jsonl", rows)
            size = (Path(folder) / "rows.jsonl").stat().st_size
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, __file__, "--measure", folder]
            ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(ended.stdout.splitlines()[-1])
            print(
                f"| {rows:,} | {size / 1e6:.0f} | {found['peak'] / 1e6:.0f} | {found['own'] / 1e6:.0f} "
                f"| {found['seconds']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
