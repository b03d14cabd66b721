"""The processes of one job: which of them this is, and what all of them found.

In one process there is rank 0 of 1, and nothing is sent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from warmstart.errors import UserError


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def of_all_ranks(value: Any) -> list[Any]:
    """What each rank gave, by rank, on every rank; all of them have to ask."""
    _, ranks = rank_and_world_size()
    if ranks == 1:
        return [value]
    values: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def failing_together() -> Iterator[None]:
    """Where one rank fails in this block, all do at its end: none waits for what will never be sent.

    Raises:
        UserError: on the others, where it was the user's mistake.
        RuntimeError: on the others, where it was not.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    outcomes = of_all_ranks(failure and (isinstance(failure, UserError), f"{type(failure).__name__}: {failure}"))
    if failure is not None:
        raise failure
    for rank, outcome in enumerate(outcomes):
        if outcome is not None:
            of_user, said = outcome
            raise (UserError if of_user else RuntimeError)(f"Rank {rank} of {len(outcomes)} failed. {said}")
