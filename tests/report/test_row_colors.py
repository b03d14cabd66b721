"""Rows are told apart by color."""

from warmstart.report.colors import colors


def test_any_number_of_rows_has_different_colors():
    for count in (0, 1, 8, 40):
        assert len(set(colors(count))) == count
    assert colors(40)[:8] == colors(8)
