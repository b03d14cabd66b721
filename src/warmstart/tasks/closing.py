"""What a scored run prints at its end: the table, what it says in words, examples, and the next commands."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from warmstart.config.metrics import split_of
from warmstart.config.schema import Config
from warmstart.data.sources.base import Example
from warmstart.evaluation.judgement import Judgement
from warmstart.evaluation.score_table import score_table, verdict
from warmstart.evaluation.truecase import restore_case
from warmstart.printing import program, say, visible
from warmstart.runs.run_dir import RunDir

LONGEST_SHOWN = 300  # characters of a document that are printed


def print_outcome(
    settings: Config,
    run_dir: RunDir,
    judgement: Judgement,
    examples: Sequence[Example],
    predictions: Sequence[str],
    lower_case: bool,
    looks: int | None = None,
) -> None:
    """Print the scores, the examples and the next commands; only the scores for a job of a sweep.

    Args:
        settings: the config of the task.
        run_dir: the run.
        judgement: its scores.
        examples: the examples of the scored split.
        predictions: their summaries.
        lower_case: whether summaries are in lower case; they are then shown in the case of their source's words.
        looks: how often the test split of the run was scored, this time included; None if it is not known.
    """
    print_scores(settings, run_dir.path, judgement, looks)
    if not run_dir.is_job_of_sweep:
        print_examples(settings, examples, predictions, split_of(judgement.metrics), restore=lower_case)
        print_next_commands(run_dir.path, settings.ckpt if settings.task == "evaluate" else str(run_dir.path))


def print_scores(settings: Config, folder: Path, judgement: Judgement, looks: int | None = None) -> None:
    """Print the table of scores, what it says in words, the number of looks, and where the run is."""
    out = Console()
    out.print(score_table(judgement, visible(f"{settings.encoder.name} x {settings.decoder.name}")))
    out.print(verdict(judgement), highlight=False, markup=False)
    if looks is not None:
        out.print(f"Looks at the test split of this model's run: {looks}", highlight=False, markup=False)
    out.print(visible(f"Run: {folder}"), highlight=False, markup=False, soft_wrap=True)


def print_examples(
    settings: Config, examples: Sequence[Example], predictions: Sequence[str], split: str, *, restore: bool
) -> None:
    """Print ``evaluation.show_examples`` examples of the scored split, drawn by ``seed`` and not by their quality.

    Args:
        settings: the config of the task.
        examples: the examples of the scored split.
        predictions: their summaries.
        split: name of the split.
        restore: whether summaries are in lower case and are shown with the case of their source's words.
    """
    count = min(settings.evaluation.show_examples, len(predictions))
    if count == 0:
        return
    drawn = sorted(np.random.default_rng(settings.seed).choice(len(predictions), count, replace=False).tolist())
    say("", f"{count} of {len(predictions)} {split} examples, drawn by seed={settings.seed}:")
    for i in drawn:
        document = textwrap.shorten(examples[i].document, LONGEST_SHOWN, placeholder=" ...")
        summary = restore_case(predictions[i], examples[i].document) if restore else predictions[i]
        say("", f"source     {document}", f"reference  {examples[i].summary}", f"summary    {summary}")


def print_next_commands(folder: Path, ckpt: str | None) -> None:
    """Print what the user may type next.

    Args:
        folder: the run directory.
        ckpt: the trained model: the run itself, or the ``ckpt`` of an evaluation.
    """
    command = program()
    say(
        "",
        "Next:",
        f"  {command} task=summarize ckpt={ckpt} input=article.txt   # your own text",
        f"  {command} task=demo ckpt={ckpt}   # a page to paste texts into",
        f"  {command} task=report 'runs=[{folder}]'   # scores and examples as one HTML page",
    )
