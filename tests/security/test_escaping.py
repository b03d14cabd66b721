"""Whatever a result says, the model card shows it and does nothing else."""

import re

from hypothesis import given
from hypothesis import strategies as st

from warmstart.runs.model_card import Use, code, model_card, plain

EVIL = "x`|\n# <script>alert(1)</script> [a](javascript:b) ![i](http://x/y.png) ```"


@given(st.text())
def test_nothing_in_a_text_is_markdown_or_html(text):
    shown = plain(text)
    assert "\n" not in shown
    assert not re.search(r"<|>", shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|#!~]", shown)


@given(st.text())
def test_code_stays_within_its_marks_and_its_cell(text):
    shown = code(text)
    fence = re.match("`+", shown).group()
    assert shown.endswith(fence)
    assert fence not in shown.removeprefix(fence).removesuffix(fence).replace(" ", "")
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)\|", shown)


def test_the_whole_card():
    result = {
        "choices": {"encoder": EVIL, "decoder": EVIL, "data": EVIL},
        "config": {"data": {"name": EVIL, "attribution": EVIL}},
        "parameters": {EVIL: 1e6},
        "generation": {EVIL: EVIL},
        "overrides": [EVIL],
        "seed": EVIL,
        "git_commit": EVIL,
        "versions": {EVIL: EVIL},
    }
    card = model_card(result, Use(True, 512, clean=(EVIL,)))
    bare = re.sub(r"(`{4,})\n.*?\n\1", "", card, flags=re.DOTALL)  # the command, in a fence longer than its own marks
    assert bare != card
    bare = re.sub(r"(`{4,}) .*? \1", "", bare)
    assert "<script" not in bare
    assert "](" not in re.sub(r"\\.", "", bare)
