"""What a researcher chooses about decoding and scoring (conf/generation, conf/evaluation)."""

from dataclasses import dataclass
from enum import StrEnum


class GenerationDtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass
class GenerationSettings:
    """Arguments of ``EncoderDecoderModel.generate``, by transformers' names and definitions, and their arithmetic."""

    num_beams: int = 4
    """Beams; 1 is greedy."""
    max_new_tokens: int = 142
    """Longest summary in tokens, start token excluded."""
    min_new_tokens: int = 0
    """Shortest summary in tokens."""
    length_penalty: float = 1.0
    """transformers' exponent: scores are divided by length**penalty (not GNMT's formula)."""
    no_repeat_ngram_size: int = 3
    """No n-gram of this many tokens twice; 0 allows all."""
    early_stopping: bool = True
    """Stop as soon as ``num_beams`` finished candidates exist."""
    do_sample: bool = False
    """Sample instead of taking the most probable."""
    temperature: float = 1.0
    """Sampling temperature."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this probability."""
    dtype: GenerationDtype = GenerationDtype.float32
    """What summaries of the test split, of ``task=summarize`` and of the demo are computed in. bfloat16 is faster where
    the device multiplies it natively, and chooses other words where two are about as probable.
    """


@dataclass
class EvaluationSettings:
    """How summaries are judged."""

    test: bool = True
    """Read, summarise and score the test split at the end of a fit. false leaves it for ``task=evaluate``, which always
    scores. A search (hydra/sweeper=search) sets false, and at its end scores the winner's; where the command line names
    it, that holds instead: true scores every trial, false none.
    """
    lead_sentences: int = 3
    """Lead-n: the first n sentences of the document, the baseline of news summarization."""
    bootstrap_samples: int = 1000
    """Resamples of the test examples behind each 95 % interval."""
    control_samples: int | None = None
    """References that the shuffled-document control is averaged over; null uses all. 0 leaves out every control.

    They cost no generation but one text of the decoder alone, and three forward passes for likelihoods.
    """
    control_shuffles: int = 5
    """Shuffles that the control is the mean of."""
