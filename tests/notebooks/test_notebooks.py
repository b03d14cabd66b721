"""Every notebook runs from top to bottom and equals its paired script."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_equals_its_script(path):
    cells = [[cell.source for cell in jupytext.read(file).cells] for file in (path, path.with_suffix(".py"))]
    assert cells[0] == cells[1]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    NotebookClient(jupytext.read(path), timeout=300, kernel_name="python3").execute()
