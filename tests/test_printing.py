"""Control characters in data are escaped in messages, logs and tracebacks."""

import io
import logging
import subprocess
import sys

import pytest

from warmstart.printing import escape_log_records, say, visible

UNSAFE = [*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F]
UNSAFE += [*range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xD800, 0xDFFF]
CONTROLS = "\x1b[31mred\x1b]0;title\x07 \u202ereversed\u2069 \x9b2J\rback"
SHOWN = r"\x1b[31mred\x1b]0;title\x07 \u202ereversed\u2069 \x9b2J\rback"


@pytest.fixture
def escaped_records():
    before = logging.getLogRecordFactory()
    escape_log_records()
    yield
    logging.setLogRecordFactory(before)


def test_only_characters_that_act_on_a_terminal_are_escaped():
    for code in UNSAFE:
        assert visible(f"a{chr(code)}b") == "a" + chr(code).encode("unicode_escape").decode() + "b"
    plain = "a\tb\nÜmläut 日本 שלום नमस्ते \N{GRINNING FACE} \\x1b"
    assert visible(plain) == plain
    assert visible(CONTROLS) == SHOWN


def test_printed_lines_are_escaped():
    out = io.StringIO()
    say("one", CONTROLS, file=out)
    assert out.getvalue() == f"one\n{SHOWN}\n"


def test_log_records_and_their_tracebacks_are_escaped_for_every_handler(escaped_records):
    out, log = io.StringIO(), logging.getLogger("some.library")
    handler = logging.StreamHandler(out)
    log.addHandler(handler)
    try:
        log.warning("found %s", CONTROLS)
        try:
            raise KeyError(CONTROLS) from ValueError(CONTROLS)
        except KeyError:
            log.exception("then")
        logging.getLogger("transformers.x").addHandler(handler)
        logging.getLogger("transformers.x").error("\x1b[31mkey\x1b[0m \x1b]0;x\x07")
    finally:
        log.removeHandler(handler)
        logging.getLogger("transformers.x").removeHandler(handler)
    text = out.getvalue()
    assert f"found {SHOWN}\n" in text
    assert f"ValueError: {SHOWN}" in text
    assert "key \\x1b]0;x\\x07\n" in text
    assert not set(text) & set(map(chr, UNSAFE))


def test_the_traceback_that_ends_a_process_is_escaped():
    program = f"import warmstart.printing as p; p.escape_tracebacks(); raise ValueError({CONTROLS!r})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback (most recent call last):")
    assert ended.stderr.rstrip().endswith(f"ValueError: {SHOWN}")
