"""Importing warmstart, and the model, loads none of the libraries that only a fit needs."""

import subprocess
import sys

import pytest

import warmstart

HEAVY = ("lightning", "hydra", "omegaconf", "datasets", "wandb", "pandas", "plotly", "pyarrow")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import warmstart", ("torch", "transformers", "numpy", *HEAVY)),
        ("import warmstart; warmstart.EncoderDecoderModel", HEAVY),
        ("import warmstart; warmstart.Summarizer", ("lightning", "datasets", "wandb", "plotly")),
        ("import warmstart; warmstart.compare", ("lightning", "datasets", "wandb", "plotly")),
    ],
)
def test_libraries_that_are_not_imported(statement, absent):
    check = f"import sys\n{statement}\nprint(*sorted(set({absent!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_every_public_name_exists_and_has_a_docstring():
    for name in warmstart.__all__:
        value = getattr(warmstart, name)
        assert name == "__version__" or value.__doc__
        assert name in dir(warmstart)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = warmstart.nothing
