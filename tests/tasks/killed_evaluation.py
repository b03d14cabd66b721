"""Run by test_interrupted_evaluation.py: ``run.py`` that ends by SIGKILL while it writes down its third batch.

python killed_evaluation.py task=evaluate ckpt=runs/x
"""

import json
import os
import signal

from warmstart.cli.main import main
from warmstart.evaluation.resumable import KeptSummaries

add, calls = KeptSummaries.add, []


def dies_in_the_third(self, indices, summaries):
    calls.append(indices)
    if len(calls) == 3:
        self._file.write(json.dumps([indices[0], "half a"])[:-3].encode())
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, indices, summaries)


if __name__ == "__main__":
    KeptSummaries.add = dies_in_the_third
    main()
