"""Compare two runs on the test examples that both have summarized."""

from dataclasses import dataclass
from pathlib import Path

from warmstart.api.trained_run import TrainedRun
from warmstart.errors import UserError, listed
from warmstart.report.collect import LIKELIHOODS, Run, collect
from warmstart.report.compare import Row
from warmstart.report.corpus_scores import corpus_score
from warmstart.report.differences import differences


@dataclass(frozen=True)
class ScoreDifference:
    """The mean difference of a score, run ``a`` minus run ``b``."""

    mean: float
    low: float | None
    """Lower end of the 95 % interval of the paired bootstrap; None for a single example."""
    high: float | None
    """Upper end."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0: such a difference is unlikely to come from the choice of examples."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same test texts. ``print`` shows a table."""

    a: Path
    b: Path
    examples: int
    """Number of scored examples."""
    scores: dict[str, ScoreDifference]
    """By score: those of ``evaluation.metrics`` that each example has, such as ``rouge1`` (0 to 100, higher is better),
    and ``nll`` (nats per token; per sentence for decoders that select sentences) or, with different tokenizers,
    ``bits_per_byte`` (lower is better); and the first of ``evaluation.metrics`` if that is a score of the whole split,
    such as ``bleu``."""
    left_out: str | None
    """Why likelihoods or scores are not compared, or not on all examples; None if nothing is left out, or if a run has
    no likelihoods."""
    split: str = "test"
    """The split of the examples: ``validation`` if the test split was not scored."""

    def __str__(self) -> str:
        examples = f"{self.examples} {self.split} examples"
        lines = [f"{self.a} minus {self.b}, {examples}, 95 % intervals of a paired bootstrap:"]
        for name, one in self.scores.items():
            digits = 3 if name in LIKELIHOODS else 2
            known = one.low is not None and one.high is not None
            ends = f" [{one.low:+.{digits}f}, {one.high:+.{digits}f}]" if known else ""
            lines.append(f"  {name:<10} {one.mean:+.{digits}f}{ends}{'' if one.excludes_zero else '  includes 0'}")
        return "\n".join([*lines, *([self.left_out] if self.left_out else [])])


def compare(run_a: str | Path | TrainedRun, run_b: str | Path | TrainedRun) -> Comparison:
    """Compare the test scores of two runs with a paired bootstrap over the examples (Koehn 2004).

    Runs that did not score the test split (``evaluation.test=false``) are compared on the validation split.

    Args:
        run_a: A finished run, or its folder.
        run_b: Another one on the same test texts.

    Returns:
        The differences, ``run_a`` minus ``run_b``.

    Raises:
        UserError: A run is unfinished or has no scored examples, or the runs have different test texts or no score of
            single examples in common.
    """
    first, second = _opened(run_a), _opened(run_b)
    _refuse_other_texts(first, second)
    rows = [Row(str(run.folder), [run]) for run in (first, second)]
    found = differences(rows, [corpus_score(row, first.primary) for row in rows])
    if not found:
        raise UserError(
            f"{first.folder} and {second.folder} have no score in common that can be compared. Evaluate both with the "
            "same evaluation.metrics; of BLEU, chrF and TER only the first metric is compared."
        )
    scores = {kind: ScoreDifference(*values) for kind, values in found[0].scores.items()}
    return Comparison(first.folder, second.folder, found[0].examples, scores, found[0].left_out, first.split)


def _opened(run: str | Path | TrainedRun) -> Run:
    folder = (run if isinstance(run, TrainedRun) else TrainedRun(run)).folder
    (found,) = (one for one in collect([folder]) if one.folder == folder)
    if not found.examples:
        raise UserError(
            f"{folder} has no scores of test examples to compare. Score it: python run.py task=evaluate ckpt={folder}"
        )
    return found


def _refuse_other_texts(first: Run, second: Run) -> None:
    a, b = (
        {i: (row.get("document"), row.get("reference")) for i, row in run.examples.items()} for run in (first, second)
    )
    differing = [i for i in {**a, **b} if a.get(i) != b.get(i)]
    if differing:
        raise UserError(
            f"{first.folder} and {second.folder} were scored on different test texts: {len(differing)} of "
            f"{len(a.keys() | b.keys())} examples differ, such as {listed(differing[:3])}. Score both on one file: "
            "python run.py task=evaluate ckpt=RUN data.path=FILE"
        )
