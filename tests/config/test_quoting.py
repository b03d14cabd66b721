"""Paths and names reach the config exactly as typed."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from warmstart.cli.main import config_dir, report_arguments
from warmstart.config.quoting import quote_texts, with_home
from warmstart.config.schema import register

TEXTS = [
    *("notes (1).csv", "a,b.csv", "a=b.csv", "a#b.csv", "für.csv", "日本.jsonl", "it's.csv", 'a "b".csv', "~/x.csv"),
    *(
        "[draft] x.csv",
        "a{1}.csv",
        "x & y!.csv",
        "a\\b.csv",
        "1e5",
        "100",
        "0.10",
        "true",
        "nan",
        "1_000",
        "plain",
        "a b",
    ),
]


def value_of(word):
    (quoted,) = quote_texts([word])
    return OverridesParser.create().parse_override(quoted).value()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["data.path", "name", "+data.summary_column", "encoder.tokenizer"])
def test_a_text_is_read_exactly_as_typed(key, text):
    assert value_of(f"{key}={text}") == text


def test_the_composed_config_contains_the_texts():
    register()
    words = quote_texts(["name=1e5", "data=files", "data.path=notes (1), für=x#.csv", "ckpt=null", "seed=7"])
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=words)
    assert (cfg.name, cfg.data.path, cfg.ckpt, cfg.seed) == ("1e5", "notes (1), für=x#.csv", None, 7)


@pytest.mark.parametrize(
    "word",
    ["data.path='a b.csv'", 'name="1e5"', "name=${seed}", "seed=1e5", "-m", "name=null", "optim.betas=[0.9,0.99]"],
)
def test_a_word_that_needs_no_quotes_is_unchanged(word):
    assert quote_texts([word]) == [word]


def test_in_a_sweep_each_value_between_commas_is_quoted_separately():
    assert quote_texts(["-m", "name=a,b", "data.path=x,y"]) == ["-m", "name=a,b", "data.path=x,y"]
    assert quote_texts(["-m", "name=a,1e5"]) == ["-m", "name=a,'1e5'"]
    assert quote_texts(["-m", "data.path=a (1).csv,b.csv"]) == ["-m", "data.path='a (1).csv',b.csv"]
    assert quote_texts(["-m", "data.path='a,b.csv',c.csv"]) == ["-m", "data.path='a,b.csv',c.csv"]
    assert quote_texts(["-m", "name=choice(a,b)"]) == ["-m", "name=choice(a,b)"]


def test_a_report_of_a_folder_with_a_quote_in_its_name():
    (word, *_) = report_arguments(["sweep=it's (1)"])
    assert OverridesParser.create().parse_override(word).value() == ["it's (1)"]


def test_an_unreadable_value_of_another_option_is_reported_with_the_quotes_it_needs(run_py, tmp_path):
    outcome = run_py("task=report", "runs=[notes#1]", cwd=tmp_path)
    assert outcome.returncode == 2
    assert """needs quotes inside the shell's quotes: 'runs="VALUE"', or in a list 'runs=["VALUE"]'""" in outcome.stderr


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("ckpt=~/demo", "ckpt=/people/me/demo"),
        ("output='~/my model'", "output='/people/me/my model'"),
        ('runs=[~/a, "~/b",c]', 'runs=[/people/me/a, "/people/me/b",c]'),
        ("sweep=~/runs/multirun/x", "sweep=/people/me/runs/multirun/x"),
        ("+encoder.path=~", "+encoder.path=/people/me"),
        ("ckpt_weights=~/a,~/b", "ckpt_weights=/people/me/a,/people/me/b"),
        ("output=a~/b", "output=a~/b"),
        ("input=~x/y", "input=~x/y"),
        ("data.prompt=~/x", "data.prompt=~/x"),
        ("data.path=~/x.csv", "data.path=~/x.csv"),  # its readers expand it, and it is recorded as typed
    ],
)
def test_the_home_folder_is_expanded_in_paths(word, found, monkeypatch):
    monkeypatch.setenv("HOME", "/people/me")
    assert with_home(["task=export", word, "-m"]) == ["task=export", found, "-m"]
