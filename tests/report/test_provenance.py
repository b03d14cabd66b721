"""Each row says which commands made it and what sets it apart."""

from warmstart.report.collect import collect
from warmstart.report.compare import rows_of
from warmstart.report.page import render
from warmstart.report.provenance import config_differences, signed_rows


def test_options_that_differ_are_listed_with_the_values_of_each_row(write_run, tmp_path):
    write_run("a", data={"max_target_length": 48, "language": "en"})
    write_run("b", encoder="roberta", data={"max_target_length": 64, "language": "en"})
    rows = rows_of(collect([tmp_path]))
    found = dict(zip([row.encoder for row in rows], config_differences(rows), strict=True))
    assert found["bert"] == {"data.max_target_length": "48", "encoder.name": "bert", "encoder.path": "hub/bert"}
    assert found["roberta"]["data.max_target_length"] == "64"


def test_one_row_differs_in_nothing(write_run, tmp_path):
    write_run("a")
    assert config_differences(rows_of(collect([tmp_path]))) == [{}]


def test_a_row_has_commands_commits_and_dates(write_run, tmp_path):
    recorded = {"overrides": ["encoder=bert", "data.path=my file.csv"], "git_commit": "0123abc"}
    write_run("a", result=recorded, finished=86_400 * 365)
    write_run("b", encoder="roberta")
    page = render(collect([tmp_path]), title="t")
    assert "<code>python run.py encoder=bert &#39;data.path=my file.csv&#39;</code>" in page
    assert "seed 1; best.ckpt; 1971-01-01 00:00 UTC; commit 0123abc" in page
    assert "The command is not recorded." in page
    assert "<li>encoder.name=roberta</li>" in page


def test_signatures_name_their_rows_only_where_rows_differ(write_run, tmp_path):
    write_run("a", result={"signatures": ["rouge|v:1", "bleu|v:1"]})
    write_run("b", encoder="roberta", result={"signatures": ["rouge|v:2", "bleu|v:1"]})
    write_run("c", encoder="electra")  # an earlier release did not record them
    assert signed_rows(rows_of(collect([tmp_path]))) == [
        {"signature": "bleu|v:1", "rows": []},
        {"signature": "rouge|v:1", "rows": ["encoder=bert"]},
        {"signature": "rouge|v:2", "rows": ["encoder=roberta"]},
    ]
    page = render(collect([tmp_path]), title="t")
    assert "<small>rouge|v:2: only encoder=roberta</small>" in page
    assert "<small>bleu|v:1</small>" in page
    assert "Some scores were computed in different ways" in page
