"""Published scores stand next to the runs, and can be told from them."""

import json
import re

import pytest

from warmstart.report.collect import collect
from warmstart.report.compare import rows_of
from warmstart.report.page import render
from warmstart.report.paper_rows import paper_rows

PAPER = {"source": "Rothe et al. 2020, BERT2BERT", "scores": {"rouge1": 39.02, "rouge2": 17.84, "rougeLsum": 36.29}}


def cells(page, text):
    """The cells of the leaderboard's row that has a text, without tags."""
    [row] = [row for row in re.findall(r"<tr.*?</tr>", page, flags=re.DOTALL) if text in row]
    return [re.sub("<.*?>", " ", cell).strip() for cell in re.findall(r"<td.*?</td>", row, flags=re.DOTALL)], row


def test_a_published_row_stands_below_the_runs_and_is_marked(write_run, tmp_path):
    data = {"name": "cnn_dailymail"}
    write_run("a", data=data, result={"paper": PAPER})
    write_run("b", data=data, seed=2, result={"paper": PAPER})
    write_run("c", encoder="roberta", data=data)
    page = render(collect([tmp_path]), title="t")
    found, row = cells(page, "BERT2BERT")
    assert row.startswith('<tr class="rival">')
    assert found[0].startswith("Rothe et al. 2020, BERT2BERT (published)")
    assert "cnn_dailymail; whole test split, scored by the authors" in found[0]
    assert [cell for cell in found[1:] if cell != "\N{EN DASH}"] == ["39.02", "17.84", "36.29"]
    head = page[page.index('id="leaderboard"') : page.index("</thead>", page.index('id="leaderboard"'))]
    assert len(found) == head.count("<th") - head.count("<thead")


COLUMNS = {
    "looks": {"test_looks": 2},
    "validation": {"metrics": {"test/rouge1": 15.0, "validation/rouge1": 40.0}},
    "ranked by a loss": {"validation": {"monitor": "validation/loss", "mode": "min", "best": 2.0}},
}


@pytest.mark.parametrize("shown", [["looks"], ["validation"], ["ranked by a loss"], [*COLUMNS], []], ids=str)
def test_every_row_has_a_cell_in_every_column(write_run, tmp_path, shown):
    more = {key: value for name in shown for key, value in COLUMNS[name].items()}
    write_run("a", result={"paper": PAPER} | more)
    write_run("b", encoder="roberta", result=more)
    page = render(collect([tmp_path]), title="t")
    table = page[page.index('id="leaderboard"') : page.index("</table>", page.index('id="leaderboard"'))]
    head, body = table.split("</thead>")
    counts = [len(re.findall("<td", row)) for row in re.findall(r"<tr.*?</tr>", body, flags=re.DOTALL)]
    assert counts == [len(re.findall("<th[ >]", head))] * 4  # two runs, a baseline and a published row


def test_without_published_scores_there_is_no_such_row(write_run, tmp_path):
    write_run("a")
    write_run("b", encoder="roberta", result={"paper": {"source": "x", "scores": {"rouge1": "many"}}})
    runs = collect([tmp_path])
    assert paper_rows(rows_of(runs)) == []
    assert "(published)" not in render(runs, title="t")


def test_a_paper_of_another_type_is_a_damaged_result(write_run, tmp_path):
    write_run("a", result={"paper": ["x"]})
    assert [run.status for run in collect([tmp_path])] == ["damaged"]


def test_text_of_a_paper_is_escaped(write_run, attack, tmp_path):
    write_run("a", result={"paper": PAPER | {"source": attack}})
    page = render(collect([tmp_path]), title="t")
    assert attack not in page
    assert json.dumps(attack) not in page
