"""The leaderboard as a file for other programs."""

import csv
import html
import io
import re
from urllib.parse import unquote

from warmstart.report.collect import collect
from warmstart.report.page import render
from warmstart.report.tables import latex_table

SCORE = {"mean": 12.345, "deviation": 1.5, "interval": [10.0, 14.0]}


def downloads(page):
    found = re.findall(r'<a download="([^"]+)" href="data:([^;]+);charset=utf-8,([^"]*)"', page)
    return {name: unquote(html.unescape(content)) for name, _, content in found}


def test_the_page_contains_its_table_as_csv(write_run, attack, tmp_path):
    write_run("a", seed=1, scores=(10.0, 20.0))
    write_run("b", seed=2, scores=(20.0, 40.0))
    write_run("c", encoder=f'{attack},"x"\ny', scores=(1.0, 2.0))
    page = render(collect([tmp_path]), title="t")
    lines = list(csv.DictReader(io.StringIO(downloads(page)["scores.csv"])))
    assert [line["configuration"] for line in lines] == ["encoder=bert", f'encoder={attack},"x"\ny', "lead1 (baseline)"]
    first, second, lead = lines
    assert (first["seeds"], float(first["ROUGE-1"])) == ("2", 22.5)
    assert float(first["ROUGE-1 low"]) < 22.5 < float(first["ROUGE-1 high"])
    assert second["ROUGE-1 standard deviation over seeds"] == ""
    assert float(lead["ROUGE-1"]) == 30.0
    assert "<img" not in page


def test_the_page_contains_its_table_as_latex(write_run, tmp_path):
    write_run("a", seed=1, scores=(10.0, 20.0))
    write_run("b", seed=2, scores=(20.0, 40.0))
    write_run("c", encoder="ro_ber&ta", scores=(1.0, 2.0))
    table = downloads(render(collect([tmp_path]), title="t"))["scores.tex"]
    assert r"encoder=bert & $22.50 \pm 10.61$ & " in table
    assert r"encoder=ro\_ber\&ta & $1.50$ & " in table
    assert "lead1 & $30.00$ & " in table
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len({line.count(" & ") for line in rows}) == 1


def test_what_latex_reads_as_commands_is_escaped():
    row = {"label": r"a\b{c}%$#^~", "scores": {"nll": SCORE, "rouge1": {"mean": None}}}
    table = latex_table([row], [], {"nll": "nats/token", "rouge1": "ROUGE-1"})
    assert r"a\textbackslash{}b\{c\}\%\$\#\textasciicircum{}\textasciitilde{} & $12.345 \pm 1.500$ & -- \\" in table
