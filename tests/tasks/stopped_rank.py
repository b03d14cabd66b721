"""Run by test_ranks.py: ``run.py`` whose second rank is stopped (SIGSTOP) in a fit's seventh batch.

A frozen host does the same to it.

python stopped_rank.py trainer.devices=2 trainer.strategy=ddp trainer.timeout_minutes=0.1
"""

import signal

from warmstart.cli.main import main
from warmstart.training.module import SummarizationModule

step, calls = SummarizationModule.training_step, []


def stops_the_other(self, batch, batch_idx):
    calls.append(batch_idx)
    if len(calls) == 7 and self.trainer.is_global_zero:
        self.trainer.strategy.launcher.procs[0].send_signal(signal.SIGSTOP)
    return step(self, batch, batch_idx)


if __name__ == "__main__":
    SummarizationModule.training_step = stops_the_other
    main()
