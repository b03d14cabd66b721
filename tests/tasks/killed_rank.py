"""Run by test_ranks.py: ``run.py`` whose second rank is killed by SIGKILL in a fit's seventh batch, once in a folder.

python killed_rank.py -m trainer.devices=2 trainer.strategy=ddp seed=1,2
"""

from pathlib import Path

from warmstart.cli.main import main
from warmstart.training.module import SummarizationModule

step, calls = SummarizationModule.training_step, []


def kills_the_other(self, batch, batch_idx):
    calls.append(batch_idx)
    if len(calls) == 7 and self.trainer.is_global_zero and not Path("killed").exists():
        Path("killed").touch()
        self.trainer.strategy.launcher.procs[0].kill()
    return step(self, batch, batch_idx)


if __name__ == "__main__":
    SummarizationModule.training_step = kills_the_other
    main()
