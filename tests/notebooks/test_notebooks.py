"""Every notebook runs from top to bottom, leaves no files, equals its paired script and is listed in the docs."""

import re
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_equals_its_script(path):
    cells = [[cell.source for cell in jupytext.read(file).cells] for file in (path, path.with_suffix(".py"))]
    assert cells[0] == cells[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path):
    cells = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_every_notebook_is_listed_in_the_docs():
    page = (ROOT / "docs" / "guides" / "library.md").read_text(encoding="utf-8")
    listed = re.findall(r"`notebooks/(\w+)\.ipynb`", page)
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_leaves_no_files(path, tmp_path):
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(jupytext.read(path), timeout=600, kernel_name="python3", resources=resources).execute()
    assert not list(tmp_path.iterdir())
