"""Blocked n-grams and minimum length, as in transformers' processors, but vectorized and in place.

transformers' processors loop over the sequences and copy the scores at every step.

Shapes: R sequences, T length so far, V vocabulary.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, MinLengthLogitsProcessor
from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor, NoRepeatNGramLogitsProcessor


class NoRepeatedNGrams(LogitsProcessor):
    """Block tokens that would repeat an n-gram of their sequence.

    Args:
        size: Length of the n-grams in tokens.
        begin: Position of the first token whose n-grams count: those of a document before it may be repeated.
    """

    def __init__(self, size: int, begin: int = 0) -> None:
        self.size, self.begin = size, begin

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores (R, V) of blocked tokens after the ids (R, T) to minus infinity, in place."""
        input_ids = input_ids[:, self.begin :]
        length = input_ids.shape[1]
        if length < self.size:
            return scores
        grams_RWN = input_ids.unfold(1, self.size, 1)
        begun_RN = input_ids[:, length - self.size + 1 :]
        repeats_RW = (grams_RWN[:, :, :-1] == begun_RN[:, None]).all(dim=-1)
        # The minimum, because a token can end a repeated n-gram and another one.
        blocked_RW = torch.where(repeats_RW, float("-inf"), float("inf")).to(scores.dtype)
        return scores.scatter_reduce_(1, grams_RWN[:, :, -1], blocked_RW, "amin")


class NoEarlyEnd(LogitsProcessor):
    """Block the end tokens while a sequence is too short.

    Args:
        shortest: Minimum length in tokens.
        ends: Ids of the end tokens (any number,).
    """

    def __init__(self, shortest: int, ends: Tensor) -> None:
        self.shortest, self.ends = shortest, ends

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores (R, V) of the end tokens after the ids (R, T) to minus infinity, in place."""
        if input_ids.shape[1] < self.shortest:
            inside = self.ends[
                (self.ends >= 0) & (self.ends < scores.shape[1])
            ]  # -1 is a common value for "no end token"
            scores[:, inside.to(scores.device)] = float("-inf")
        return scores


def in_place(processors: LogitsProcessorList) -> LogitsProcessorList:
    """Replace transformers' processors by the ones above, in the same order; the scores must not be used elsewhere."""
    return LogitsProcessorList(_in_place(one) for one in processors)


def _in_place(one: LogitsProcessor) -> LogitsProcessor:
    if type(one) is NoRepeatNGramLogitsProcessor:
        return NoRepeatedNGrams(one.ngram_size)
    if type(one) is MinLengthLogitsProcessor:
        return NoEarlyEnd(one.min_length, one.eos_token_id)
    if type(one) is MinNewTokensLengthLogitsProcessor:
        return NoEarlyEnd(one.prompt_length_to_skip + one.min_new_tokens, one.eos_token_id)
    return one
