"""Give every example of a split an id of its own: predictions and reports find examples by it."""

from collections.abc import Sequence

from warmstart.data.sources.base import Example


def renamed(ids: Sequence[str], numbers: Sequence[int] | None = None) -> dict[int, str]:
    """Return new ids for the rows whose id an earlier row has.

    A new id is the old one with the row's number, such as ``a-7``, and repeats the number if another row is named so.

    Args:
        ids: The id of each row.
        numbers: The number of each row; None counts from 0.

    Returns:
        New ids by the row's number. It is empty if all ids are unique.
    """
    taken = set(ids)
    if len(taken) == len(ids):
        return {}
    seen: set[str] = set()
    found: dict[int, str] = {}
    for number, one in zip(numbers or range(len(ids)), ids, strict=True):
        if one in seen:
            name = f"{one}-{number}" if one else str(number)
            while name in taken:
                name += f"-{number}"
            taken.add(name)
            found[number] = name
        seen.add(one)
    return found


def with_unique_ids(examples: list[Example]) -> list[Example]:
    """Return the examples of a split with the ids of ``renamed``."""
    new = renamed([example.id for example in examples])
    return [example._replace(id=new.get(i, example.id)) for i, example in enumerate(examples)] if new else examples
