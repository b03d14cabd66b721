"""Memory of a fit by the number of its rows: reading, checking, tokenizing, planning and one step of training.

    python benchmarks/load.py 10000 100000 1000000

Each number of rows has a process, a file and a cache of its own. Peak resident memory is the kernel's (VmHWM); what of
it is the process's own, rather than pages of files that the kernel may drop at any time, is read ten times a second.
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
    """Short texts, no two alike: about 40 words to about 8."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            words = [WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(30 + i % 20)]
            row = {"document": f"Number {i}: {' '.join(words)}.", "summary": f"{words[0]} {words[1]} of number {i}."}
            file.write(json.dumps(row) + "\n")


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def fit(folder: Path) -> None:
    """The fit that is measured."""
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
    if sys.argv[1] == "--measure":
        fit(Path(sys.argv[2]))
        return
    print("| rows | file, MB | peak memory, MB | of it the process's own, MB | seconds |\n|---|---|---|---|---|")
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
