"""SARI of the paper's example, and of texts that keep, copy and delete everything."""

import numpy as np
import pytest

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.metrics import scorer_of
from warmstart.evaluation.metrics.sari import sari

SOURCE = "About 95 species are currently accepted ."
REFERENCES = (
    "About 95 species are currently known .",
    "About 95 species are now accepted .",
    "95 species are now accepted .",
)


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        ("About 95 you now get in .", 0.2682782411698074),
        ("About 95 species are now agreed .", 0.5889995423074248),
        ("About 95 species are currently agreed .", 0.5071608864657479),
    ],
)
def test_the_example_of_the_paper(prediction, score):
    assert sari(SOURCE.split(), prediction.split(), [text.split() for text in REFERENCES]) == pytest.approx(score)


def test_it_compares_with_the_source_and_the_reference():
    scorer = scorer_of(EvaluationSettings(metrics=["sari"]), "en")
    predictions = ["The species are known.", SOURCE, ""]
    scores = scorer(predictions, ["The species are known."] * 3, [SOURCE] * 3)["sari"]
    assert scores[0] > 60 > scores[1]
    assert np.isfinite(scores).all()
