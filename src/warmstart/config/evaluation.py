"""Options of generation and scoring (conf/generation, conf/evaluation)."""

from dataclasses import dataclass
from enum import StrEnum

from warmstart.config.metrics import METRICS
from warmstart.config.option import option
from warmstart.config.paper import PaperSettings


class GenerationDtype(StrEnum):
    """Dtype of the weights while summaries are generated."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class LengthPenaltyKind(StrEnum):
    """What the log-probability of a beam is divided by."""

    transformers = "transformers"
    gnmt = "gnmt"


@dataclass
class GenerationSettings:
    """Arguments of ``EncoderDecoderModel.generate``, with the names and definitions of transformers."""

    num_beams: int = option(4, at_least=1, doc="Number of beams. 1 is greedy search, or sampling with `do_sample`.")
    max_new_tokens: int = option(
        142, at_least=1, doc="Longest summary in tokens, start token excluded and end token included."
    )
    min_new_tokens: int = option(
        0,
        at_least=0,
        doc="Shortest summary in tokens, start and end token excluded. Raise it when summaries end too early.",
    )
    length_penalty: float = option(
        1.0,
        at_least=-10,
        at_most=10,  # beyond the bounds, length**length_penalty overflows float32
        doc="Exponent of the length in beam search: the score of a beam is divided by `length**length_penalty`, as in "
        "transformers. A larger value favors longer summaries.",
    )
    length_penalty_kind: LengthPenaltyKind = option(
        LengthPenaltyKind.transformers,
        doc="Definition of `length_penalty`. `transformers` divides the score of a beam by `length**length_penalty`, "
        "`gnmt` by `((5 + length) / 6)**length_penalty` (Wu et al. 2016), as BertSum does. The end token counts.",
    )
    no_repeat_ngram_size: int = option(
        3,
        at_least=0,
        doc="Length in tokens of the n-grams that may not occur twice in a summary. 0 allows every repetition.",
    )
    no_repeat_word_ngram_size: int = option(
        0,
        at_least=0,
        doc="Length in words of the n-grams that may not occur twice in a summary; 3 is the trigram blocking of "
        "BertSum. 0 allows every repetition. A decoder that selects sentences uses only this option and "
        "`generation.dtype`.",
    )
    early_stopping: bool = option(
        True,
        doc="Whether beam search stops as soon as there are `num_beams` finished candidates. false continues until a "
        "better candidate is unlikely.",
    )
    do_sample: bool = option(False, doc="Whether tokens are sampled. false chooses the most probable ones.")
    temperature: float = option(
        1.0,
        at_least=1e-4,  # below, the divided logits overflow float32
        at_most=1e4,  # above, they are all equal
        doc="Number that logits are divided by before a token is sampled. Less than 1 favors probable tokens.",
    )
    top_p: float = option(
        1.0,
        above=0,
        at_most=1,
        doc="Sample only from the smallest set of most probable tokens whose probabilities sum to at least `top_p`. 1 "
        "samples from all tokens.",
    )
    dtype: GenerationDtype = option(
        GenerationDtype.float32,
        doc="Precision in which all summaries are generated except those of the validations in a fit, which use "
        "`trainer.precision`. `bfloat16` is faster if the device multiplies it in hardware. It may change a word if "
        "two are almost equally probable.",
    )


@dataclass
class EvaluationSettings:
    """How summaries are scored."""

    test: bool = option(
        True,
        doc="Whether a fit summarizes and scores the test split at its end. With false, the test split is not read, "
        "and the validation split is summarized and scored instead (not if `trainer.validation_samples=0`). A later "
        "`task=evaluate` scores the test split; with `evaluation.test=false` on its command line it scores the "
        "validation split. `hydra/sweeper=search` by default scores only the best trial on the test split, at the end "
        "of the search. If the command line sets this option, true scores every trial and false none.",
    )
    metrics: list[str] = option(
        default_factory=lambda: ["rouge"],
        choices=tuple(METRICS),
        doc="Metrics of summaries, baselines and controls, on the scored split and on the validation samples. Verdicts "
        "and reports use the first score that says which value is better. `rouge`, `bleu`, `chrf` and `ter` (the "
        "numbers of rouge-score and sacrebleu), `exact_match` and `bertscore` compare with the reference, `sari` (for "
        "simplification) with reference and source. `fragments`, `novel_ngrams`, `entity_precision` and "
        "`number_precision` compare with the source. `repetition` describes the summary, and `length_ratio` is its "
        "length divided by that of the reference.",
    )
    bertscore_model: str | None = option(
        None,
        doc="Model of the metric `bertscore`: a local folder or a hub id, such as bert-base-multilingual-cased.",
    )
    bertscore_layer: int | None = option(
        None,
        at_least=0,
        doc="Hidden layer of `evaluation.bertscore_model` whose states are compared; 0 is the embeddings. null is the "
        "last layer. bert-score's own choices are 17 for roberta-large and 9 for bert-base-multilingual-cased.",
    )
    lead_sentences: int = option(
        3,
        at_least=1,
        doc="Number of sentences in the lead baseline, which copies the start of the source.",
    )
    bootstrap_samples: int = option(
        1000,
        at_least=1,
        doc="Number of bootstrap resamples of the scored examples for each 95 % confidence interval.",
    )
    control_samples: int | None = option(
        None,
        at_least=0,
        doc="Number of references scored in the shuffled-document control. null scores all; 0 turns off all controls. "
        "The controls cost three forward passes over the scored split and one generated text.",
    )
    control_shuffles: int = option(
        5, at_least=1, doc="Number of shuffles over which the shuffled-document control is averaged."
    )
    show_examples: int = option(
        0,
        at_least=0,
        changes_result=False,
        doc="Number of scored examples that are printed at the end with source, reference and summary. They are drawn "
        "by `seed`, not by their quality.",
    )
    paper: PaperSettings = option(
        default_factory=PaperSettings, changes_result=False, doc="What a paper reports for this recipe."
    )
