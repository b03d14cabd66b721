"""Run by test_rank_watch.py: a process that waits for a rank which was killed, as a collective call does."""

import subprocess
import sys
import time

from lightning.pytorch.strategies.launchers import subprocess_script

from warmstart.training.distributed import rank_watch

if __name__ == "__main__":
    rank_watch.GRACE = 1.0
    with rank_watch.watched_ranks():
        ranks = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)]
        subprocess_script._launch_process_observer(ranks)
        print(ranks[0].pid, flush=True)
        ranks[1].kill()
        time.sleep(600)
