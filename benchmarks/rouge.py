"""Compare ROUGE-1, -2, -L and -Lsum with Google's rouge-score on CNN/DailyMail-sized pairs: seconds and equality.

    python benchmarks/rouge.py --pairs 11490 --repeats 5

A text has 56 random words in four lines, like the highlights of CNN/DailyMail. rouge-score is timed on
the first ``--peer`` pairs and its time is scaled, because it needs half a minute for all.
"""

import argparse
import random
import statistics
import time

import numpy as np
from rouge_score import rouge_scorer

from warmstart.evaluation.bootstrap import bootstrap_intervals
from warmstart.evaluation.metrics.rouge import KINDS, rouge_scores


def texts(count: int, seed: int) -> list[str]:
    """Return random summaries of four lines with fourteen words each."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    return ["\n".join(" ".join(draw.choices(words, k=14)) for _ in range(4)) for _ in range(count)]


def main() -> None:
    """Print the seconds of both, their ratio, and the largest difference of a score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=11490)
    parser.add_argument("--peer", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    chosen = parser.parse_args()
    predictions, references = texts(chosen.pairs, 1), texts(chosen.pairs, 1)
    random.Random(3).shuffle(predictions)
    peer = rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
    mine, theirs = [], []
    for _ in range(chosen.repeats):
        began = time.perf_counter()
        scores = rouge_scores(predictions, references)
        mine.append((time.perf_counter() - began) / chosen.pairs)
        began = time.perf_counter()
        expected = [peer.score(references[i], predictions[i]) for i in range(chosen.peer)]
        theirs.append((time.perf_counter() - began) / chosen.peer)
    began = time.perf_counter()
    bootstrap_intervals(np.stack(list(scores.values()), axis=1), chosen.resamples, seed=0)
    bootstrap = time.perf_counter() - began
    gap = max(
        float(np.abs(scores[kind][: chosen.peer] - [100 * row[kind].fmeasure for row in expected]).max())
        for kind in KINDS
    )
    ours, slow = statistics.median(mine), statistics.median(theirs)
    print(f"{chosen.pairs} pairs: rouge-score {slow * chosen.pairs:.1f} s (scaled from {chosen.peer} pairs), ", end="")
    print(f"warmstart {ours * chosen.pairs:.2f} s, ratio {slow / ours:.0f}, largest difference {gap:.1g};")
    print(f"intervals of {len(KINDS)} scores from {chosen.resamples} resamples {bootstrap:.2f} s")


if __name__ == "__main__":
    main()
