"""Any override or YAML file gives settings or a message that explains what is wrong."""

import os

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmstart.cli.hydra_files import explain_composition
from warmstart.cli.main import config_dir
from warmstart.config.schema import Config, plain, register, to_settings
from warmstart.runs.explain import explain
from warmstart.tasks.check import faults

# A longer run: FUZZ_EXAMPLES=2000 python -m pytest tests/conf/test_bad_overrides.py
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def flat(values, prefix=""):
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")


KEYS = sorted(flat(plain(Config())))
PIECES = ["1", "-1", "1e400", "nan", "null", "true", "[]", "[1,[2]]", "{a:1}", "{_target_:os.system}", "???", "x", "é"]
PIECES += [
    "../x",
    "=",
    ",",
    "cpu",
    "bert",
    "}",
    "${",
    "${oc.env:HOME}",
    "${a}",
    "${encoder}",
    "''",
    '"',
    "\0",
    "\ud800",
]
PIECES += ["\ud800", "\n", " ", "2" * 400]
others = ["no_such", "data.no_such", "encoder", "hydra.run.dir", "a.b.c", ""]
key = st.one_of(st.sampled_from(KEYS), st.sampled_from(others))
pieces = st.sampled_from(PIECES)
value = st.one_of(pieces, st.lists(pieces, max_size=4).map("".join), st.text(max_size=6))
signs = st.sampled_from(["", "", "+", "++", "~"])
word = st.tuples(signs, key, st.sampled_from(["=", "=", ""]), value).map("".join)


def outcome(words, folder=None):
    """Return the invalid settings that are found, or the message of an error; any other error is a defect."""
    register()
    explain_composition()
    try:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            search = [f"hydra.searchpath=[file://{folder}]"] if folder else []
            cfg = compose("config", overrides=["debug=tiny", *search, *words])
        return faults(to_settings(cfg))
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        assert len(message) > 10
        return message


@many
@given(st.lists(word, min_size=1, max_size=2))
def test_any_override_is_accepted_or_explained(words):
    outcome(words)


keys = st.one_of(st.sampled_from([*KEYS, "defaults", "_target_", "hydra"]), st.text(max_size=3))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(PIECES))
nested = lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(keys, inner, max_size=3))  # noqa: E731
trees = st.recursive(scalars, nested)


@many
@given(st.one_of(st.binary(max_size=60), trees.map(lambda tree: repr(tree).encode("utf-8", "surrogatepass"))))
def test_any_yaml_is_accepted_or_explained(tmp_path, content):
    (tmp_path / "experiment").mkdir(exist_ok=True)
    (tmp_path / "experiment" / "fuzz.yaml").write_bytes(content)
    outcome(["experiment=fuzz"], tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("data: {no_such: 1}", "no_such"),
        ("data: {max_source_length: long}", "max_source_length"),
        ("data: [1]", "DataSettings"),
        ("a: [", "fuzz.yaml"),
        ("- 1", "ListConfig"),
    ],
)
def test_an_invalid_yaml_is_explained(tmp_path, content, expected):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "fuzz.yaml").write_text("# @package _global_\n" + content)
    assert expected in str(outcome(["experiment=fuzz"], tmp_path))
