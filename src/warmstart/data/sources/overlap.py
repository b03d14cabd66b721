"""Find documents that two splits share: a model has seen them in training, and its test scores are too good."""

from collections.abc import Sequence

import numpy as np

from warmstart.data.sources.base import Example, LazyRows
from warmstart.data.sources.row_store import StoredRows


def shared_documents(split: Sequence[Example], train: Sequence[Example]) -> int | None:
    """Count the examples of a split whose document is also in the training split, character by character.

    Args:
        split: The examples of validation or test, as the reader returns them.
        train: Those of training.

    Returns:
        The number of examples of ``split``; None if reading all documents would take long.
    """
    if isinstance(split, StoredRows) and isinstance(train, StoredRows):
        return int(np.isin(split.split_hashes("test"), train.split_hashes("test")).sum())
    in_arrow = getattr(split, "shared_documents", None)
    if in_arrow is not None and type(split) is type(train):
        found: int | None = in_arrow(train)
        return found
    if isinstance(split, LazyRows) or isinstance(train, LazyRows):
        return None
    seen = {example.document for example in train}
    return sum(example.document in seen for example in split)
