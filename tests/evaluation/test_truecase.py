"""The case of a shown summary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart.evaluation.truecase import restore_case


@pytest.mark.parametrize(
    ("summary", "document", "shown"),
    [
        ("french physicist", "Ana Ruiz was a French physicist.", "French physicist"),
        ("work by ana ruiz", "Ana Ruiz was a physicist.", "work by Ana Ruiz"),
        ("river in the north", "The river is in the north of Peru. River trade is old.", "river in the north"),
        ("bands such as the quiet", "The Quiet are a band.", "bands such as the Quiet"),
        ("nato mission", "NATO began it.", "NATO mission"),
        ("a US town", "It is in the us.", "a US town"),
        ("unknown words stay", "Nothing of them.", "unknown words stay"),
        ("may is a month", "In May it may rain, or it may not.", "may is a month"),
        ("a school in lima", "Students of the school learn in Lima, the capital.", "a school in Lima"),
    ],
)
def test_words_are_written_as_in_the_source(summary, document, shown):
    assert restore_case(summary, document) == shown


@given(st.text(), st.text())
def test_nothing_but_case_changes(summary, document):
    assert restore_case(summary, document).casefold() == summary.casefold()
