"""Bans of tokens as transformers' processors state them, for all rows at one time and in place.

What bans by a row's own tokens, or by how long it is, needs neither a loop over rows nor a copy of the scores: of 64
rows and 50,257 tokens each copy is 13 MB at every step.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, MinLengthLogitsProcessor
from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor, NoRepeatNGramLogitsProcessor


class NoRepeatedNGrams(LogitsProcessor):
    """Ban the tokens that would complete an n-gram of ``size`` that their row holds already."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) for rows of ids (R, T), changed in place: minus infinity at what is banned."""
        length = input_ids.shape[1]
        if length < self.size:
            return scores
        grams_RWN = input_ids.unfold(1, self.size, 1)
        begun_RN = input_ids[:, length - self.size + 1 :]
        repeats_RW = (grams_RWN[:, :, :-1] == begun_RN[:, None]).all(dim=-1)
        # The minimum, since one token can end a repeated and another n-gram.
        banned_RW = torch.where(repeats_RW, float("-inf"), float("inf")).to(scores.dtype)
        return scores.scatter_reduce_(1, grams_RWN[:, :, -1], banned_RW, "amin")


class NoEarlyEnd(LogitsProcessor):
    """Ban the ``ends`` while a row has fewer than ``shortest`` tokens."""

    def __init__(self, shortest: int, ends: Tensor) -> None:
        self.shortest, self.ends = shortest, ends

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, V) for rows of ids (R, T), changed in place."""
        if input_ids.shape[1] < self.shortest:
            inside = self.ends[(self.ends >= 0) & (self.ends < scores.shape[1])]  # -1 is some people's "never"
            scores[:, inside.to(scores.device)] = float("-inf")
        return scores


def in_place(processors: LogitsProcessorList) -> LogitsProcessorList:
    """The same processors in the same order, those above for transformers' own: for scores that nobody else holds."""
    return LogitsProcessorList(_in_place(one) for one in processors)


def _in_place(one: LogitsProcessor) -> LogitsProcessor:
    if type(one) is NoRepeatNGramLogitsProcessor:
        return NoRepeatedNGrams(one.ngram_size)
    if type(one) is MinLengthLogitsProcessor:
        return NoEarlyEnd(one.min_length, one.eos_token_id)
    if type(one) is MinNewTokensLengthLogitsProcessor:
        return NoEarlyEnd(one.prompt_length_to_skip + one.min_new_tokens, one.eos_token_id)
    return one
