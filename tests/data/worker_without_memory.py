"""Run by test_collate.py: a loader's worker without shared memory, by a limit on the size of files."""

import resource

import numpy as np
from torch.utils.data import DataLoader

from warmstart.data.collate import Collator


def forbid(worker: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


if __name__ == "__main__":
    rows = [(i, np.arange(2000), np.arange(20)) for i in range(8)]
    loader = DataLoader(rows, batch_size=4, num_workers=1, collate_fn=Collator(0), worker_init_fn=forbid)
    print(len(list(loader)))
