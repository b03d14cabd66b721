"""Run by test_start.py: ``run.py`` that prints how many modules each job of a sweep imported.

python jobs_import.py -m debug=tiny seed=1,2
"""

import sys

from warmstart.cli.main import main
from warmstart.sweeps import sweep


def counting(run_job):
    """``run_job``, and a line of how many modules it found loaded, and how many it left."""

    def wrapped(*args):
        before = len(sys.modules)
        found = run_job(*args)
        print("modules", before, len(sys.modules))
        return found

    return wrapped


if __name__ == "__main__":
    import warmstart.cli.main as cli

    cli.run_job = counting(sweep.run_job)
    main()
