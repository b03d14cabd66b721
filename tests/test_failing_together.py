"""If one rank fails, all ranks fail with its reason (real processes, gloo)."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from warmstart.collectives import failing_together, of_all_ranks, rank_and_world_size
from warmstart.errors import UserError


def one_rank(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    outcomes = []
    for failure in (None, ValueError("bad"), UserError("fix it")):
        try:
            with failing_together():
                if failure is not None and rank == 1:
                    raise failure
            outcomes.append(str(of_all_ranks(rank_and_world_size())))
        except Exception as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    (folder / str(rank)).write_text("\n".join(outcomes))
    torch.distributed.destroy_process_group()


def test_all_ranks_fail_if_one_does(tmp_path):
    torch.multiprocessing.spawn(one_rank, (tmp_path,), nprocs=2)
    ranks = "[(0, 2), (1, 2)]"
    assert (tmp_path / "1").read_text().splitlines() == [ranks, "ValueError: bad", "UserError: fix it"]
    assert (tmp_path / "0").read_text().splitlines() == [
        ranks,
        "RuntimeError: Rank 1 of 2 failed. ValueError: bad",
        "UserError: Rank 1 of 2 failed. UserError: fix it",
    ]


def test_one_process_keeps_its_error():
    assert of_all_ranks("alone") == ["alone"]
    with pytest.raises(OSError, match="gone"), failing_together():
        raise OSError("gone")
