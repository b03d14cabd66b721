"""Run by test_kills.py: ``run.py`` that gets a signal so many seconds after its training began.

SIGNAL=9 SECONDS=0.7 python killed_fit.py debug=tiny name=run
"""

import os
import threading

from warmstart.cli.main import main
from warmstart.training.module import SummarizationModule

if __name__ == "__main__":
    moment = threading.Timer(float(os.environ["SECONDS"]), os.kill, (os.getpid(), int(os.environ["SIGNAL"])))
    moment.daemon = True
    if "LOCAL_RANK" not in os.environ:  # a further rank runs this file, too
        SummarizationModule.on_train_start = lambda module: moment.start()
    main()
