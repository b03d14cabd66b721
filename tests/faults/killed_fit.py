"""Run ``run.py`` and send it SIGNAL when SECONDS have passed since training started; started by test_kills.py.

SIGNAL=9 SECONDS=0.7 python killed_fit.py debug=tiny name=run
"""

import os
import threading

from warmstart.cli.main import main
from warmstart.training.module import SummarizationModule

if __name__ == "__main__":
    moment = threading.Timer(float(os.environ["SECONDS"]), os.kill, (os.getpid(), int(os.environ["SIGNAL"])))
    moment.daemon = True
    if "LOCAL_RANK" not in os.environ:  # other ranks run this file, too
        SummarizationModule.on_train_start = lambda module: moment.start()
    main()
