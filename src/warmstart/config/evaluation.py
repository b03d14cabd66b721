"""What a researcher chooses about decoding and scoring (conf/generation, conf/evaluation)."""

from dataclasses import dataclass
from enum import StrEnum

from warmstart.config.option import option


class GenerationDtype(StrEnum):
    """Dtype of the weights while summaries are generated."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass
class GenerationSettings:
    """Arguments of ``EncoderDecoderModel.generate``, with the names and definitions of transformers."""

    num_beams: int = option(4, at_least=1, doc="Number of beams. 1 is greedy search, or sampling with `do_sample`.")
    max_new_tokens: int = option(142, at_least=1, doc="Longest summary in tokens, start token excluded.")
    min_new_tokens: int = option(
        0,
        at_least=0,
        doc="Shortest summary in tokens, start token excluded. Raise it when summaries end too early.",
    )
    length_penalty: float = option(
        1.0,
        at_least=-10,
        at_most=10,  # a length to the power of more overflows float32
        doc="Exponent of the length in beam search: the score of a beam is divided by `length**length_penalty`, as in "
        "transformers. A larger value favours longer summaries.",
    )
    no_repeat_ngram_size: int = option(
        3,
        at_least=0,
        doc="Length in tokens of the n-grams that may not occur twice in a summary. 0 allows every repetition.",
    )
    early_stopping: bool = option(
        True,
        doc="Whether beam search stops as soon as `num_beams` finished candidates exist. false searches on until no "
        "better candidate is likely.",
    )
    do_sample: bool = option(False, doc="Whether tokens are sampled. false takes the most probable ones.")
    temperature: float = option(
        1.0,
        at_least=1e-4,  # scores divided by less overflow float32, by more than the upper bound they are all the same
        at_most=1e4,
        doc="Number that scores are divided by before a token is sampled. Less than 1 favours probable tokens.",
    )
    top_p: float = option(
        1.0,
        above=0,
        at_most=1,
        doc="Probability mass to sample from: the smallest set of most probable tokens that reaches it. 1 samples from "
        "all tokens.",
    )
    dtype: GenerationDtype = option(
        GenerationDtype.float32,
        doc="Precision in which summaries of the test split, of `task=summarize` and of the demo are generated. "
        "`bfloat16` is faster where the device multiplies it in hardware. It may choose another word where two are "
        "about equally probable.",
    )


@dataclass
class EvaluationSettings:
    """How summaries are judged."""

    test: bool = option(
        True,
        doc="Whether a fit reads, summarizes and scores the test split at its end. false leaves that to "
        "`task=evaluate`, which always scores. `hydra/sweeper=search` sets false for its trials and scores the best "
        "one at the end, unless the command line sets this option: true scores every trial, false scores none.",
    )
    lead_sentences: int = option(
        3,
        at_least=1,
        doc="Number of sentences at the start of the source that form the lead baseline.",
    )
    bootstrap_samples: int = option(
        1000,
        at_least=1,
        doc="Number of resamples of the test examples that each 95 % confidence interval is computed from.",
    )
    control_samples: int | None = option(
        None,
        at_least=0,
        doc="Number of references that the shuffled-source control is averaged over. null uses all; 0 leaves out every "
        "control. The controls cost three forward passes over the test split and one generated text.",
    )
    control_shuffles: int = option(
        5, at_least=1, doc="Number of shuffles that the shuffled-source control is averaged over."
    )
    show_examples: int = option(
        0,
        at_least=0,
        changes_result=False,
        doc="Number of test examples that are printed at the end with source, reference and summary. They are drawn by "
        "`seed`, not by their quality.",
    )
