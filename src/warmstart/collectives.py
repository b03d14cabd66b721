"""Collective operations over the processes of one job.

A single process is rank 0 of 1, and sends nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from warmstart.errors import UserError


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def of_all_ranks(value: Any) -> list[Any]:
    """Gather a value from every rank; all ranks must call this.

    Args:
        value: Any value that can be pickled.

    Returns:
        The values in the order of the ranks, on every rank.
    """
    _, ranks = rank_and_world_size()
    if ranks == 1:
        return [value]
    values: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def failing_together() -> Iterator[None]:
    """Make all ranks fail at the end of the block if one rank fails in it, so that none waits forever.

    Raises:
        UserError: On the other ranks, if the failure is a ``UserError``.
        RuntimeError: On the other ranks, if the failure is another error.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - raised again below, on every rank
        failure = error
    outcomes = of_all_ranks(failure and (isinstance(failure, UserError), f"{type(failure).__name__}: {failure}"))
    if failure is not None:
        raise failure
    for rank, outcome in enumerate(outcomes):
        if outcome is not None:
            of_user, message = outcome
            raise (UserError if of_user else RuntimeError)(f"Rank {rank} of {len(outcomes)} failed. {message}")
