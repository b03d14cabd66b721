"""No n-gram twice, for all rows at one time: what transformers' processor bans row by row in Python, on the device."""

import torch
from torch import Tensor
from transformers import LogitsProcessor


class NoRepeatedNGrams(LogitsProcessor):
    """Ban the tokens that would complete an n-gram of ``size`` that their row holds already."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) for rows of ids (R, T), with minus infinity at what is banned."""
        length = input_ids.shape[1]
        if length < self.size:
            return scores
        grams_RWN = input_ids.unfold(1, self.size, 1)
        begun_RN = input_ids[:, length - self.size + 1 :]
        repeats_RW = (grams_RWN[:, :, :-1] == begun_RN[:, None]).all(dim=-1)
        # The minimum, since one token can end a repeated and another n-gram.
        banned_RW = torch.where(repeats_RW, float("-inf"), float("inf")).to(scores.dtype)
        return scores.scatter_reduce(1, grams_RWN[:, :, -1], banned_RW, "amin")
