"""Commands in README and docs/ name files and options that exist; run.py commands give valid configs."""

import re
import shlex
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

from warmstart.cli.main import report_arguments
from warmstart.config.data import DataKind
from warmstart.config.own_files import with_own_files
from warmstart.data.sources.files import read_files
from warmstart.runs.run_dir import RunDir
from warmstart.tasks.check import faults

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *(ROOT / "docs").rglob("*.md")]
# Commands of other programs, which are not checked.
OTHERS = (".", "sbatch", "srun", "optuna-dashboard", "sha256sum", "wandb", "git", "cd", "eval", "curl", "docker")
INLINE = r"`((?:python (?:run\.py|benchmarks/)|warmstart |make |pytest |torchrun )[^`]+)`"


def _commands(text: str) -> list[str]:
    """Return the lines of shell blocks, and the commands inside sentences."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    lines = (
        "".join(block for language, block in blocks if language in ("", "bash", "sh")).replace("\\\n", " ").splitlines()
    )
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = [line for line in lines if line.strip()] + re.findall(INLINE, prose.replace("\n", " "))
    return [line for line in found if not line.endswith("...")]  # a form such as `make ...` is not a command


def _words(line: str) -> list[str]:
    return shlex.split(re.split(r" [|>]", line)[0], comments=True)


TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
COMMANDS = sorted({shlex.join(_words(line)) for text in TEXTS for line in _commands(text)})


def _after(word: str, words: list[str]) -> list[str] | None:
    return words[words.index(word) + 1 :] if word in words else None


RUNS = [line for line in COMMANDS if _after("run.py", _words(line)) is not None or line.startswith("warmstart ")]
REST = [line for line in COMMANDS if line not in RUNS and _words(line)[0] not in OTHERS]


def test_commands_are_found():
    assert len(RUNS) >= 20
    assert {"make demo", "make test", "make help", "make docs"} <= set(COMMANDS)


@pytest.mark.parametrize("line", RUNS)
def test_a_run_command_gives_a_valid_config(line, settings_of, tmp_path, monkeypatch):
    words = _after("run.py", _words(line)) or _words(line)[1:]
    sweep = "-m" in words
    words = [word for word in words if word != "-m"]
    if "task=report" in words:
        words = report_arguments(words)
    words = [word for word in words if "=" in word and not word.startswith("hydra")]
    monkeypatch.chdir(tmp_path)
    _write_files(words)
    words = with_own_files([word for word in words if word != "task=evaluate"])  # it reads data.path as a fit does
    for first in (0, -1):  # the first and the last job of a sweep
        pairs = [word.partition("=") for word in words]
        settings = settings_of(*(f"{key}={value.split(',')[first] if sweep else value}" for key, _, value in pairs))
        assert faults(settings) == []
    if settings.data.kind is DataKind.files:
        splits, _ = read_files(settings.data)
        assert all(len(splits[split]) for split in ("train", "validation", "test"))


def _write_files(words: list[str]) -> None:
    """Write the data files that a command names, with its columns, and the folders of its models."""
    given = dict(word.partition("=")[::2] for word in words)
    for role, kind in (("encoder", "T5Config"), ("decoder", "GPT2Config")):
        if given.get(role) == "hf":  # a check reads only this file
            getattr(transformers, kind)().save_pretrained(given[f"{role}.path"])
    for model in ("ckpt_weights", "optim.teacher"):
        if model in given:
            best = RunDir(Path(given[model])).checkpoints.best
            best.parent.mkdir(parents=True)
            torch.save({"hyper_parameters": {}}, best)
    columns = [given.get(f"data.{name}_column", name).strip('"') for name in ("document", "summary")]
    number = given.get("data.id_column", "number")
    rows = [{number: f"n{i}", columns[0]: f"Document {i}.", columns[1]: f"Summary {i}."} for i in range(20)]
    for key, value in given.items():
        if not re.fullmatch(r"data\.(\w+_)?path", key) or not value:
            continue
        path = Path(value)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row | {columns[0]: f"{row[columns[0]]} ({key})"} for row in rows]
        if path.suffix in (".csv", ".tsv"):
            delimiter = given.get("data.delimiter", "\t" if path.suffix == ".tsv" else ",").strip('"')
            pd.DataFrame(rows).to_csv(path, index=False, sep=delimiter)
        elif path.suffix in (".json", ".jsonl"):
            pd.DataFrame(map(_nested, rows)).to_json(path, orient="records", lines=path.suffix == ".jsonl")
        elif path.suffix == ".parquet":
            pd.DataFrame(rows).to_parquet(path)
        else:
            path.mkdir(exist_ok=True)
            for i, row in enumerate(rows):
                (path / f"{i}.txt").write_text(row[columns[0]])
                (path / f"{i}.summary.txt").write_text(row[columns[1]])


def _nested(row: dict[str, str]) -> dict[str, object]:
    """Return a row with an object for each dotted column, and several columns for "title + body"."""
    whole: dict[str, object] = {}
    for names, text in row.items():
        for name in names.split(" + "):
            inner, (*outer, last) = whole, name.split(".")
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = text
    return whole


@pytest.mark.parametrize("line", REST)
def test_another_command_names_what_exists(line):
    words = _words(line)
    while "=" in words[0]:  # an environment variable
        words = words[1:]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE)
    elif words[0].endswith("pip"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        for word in words:
            named = re.fullmatch(r"[\w.]+\[(.*)\]", word)
            assert not named or set(named[1].split(",")) <= set(extras)
            assert not word.endswith((".txt", ".lock")) or (ROOT / word).exists()
    elif words[0] == "pytest" or words[:3] == ["python", "-m", "pytest"]:
        paths = [word for word in words if "/" in word]
        assert paths
        assert all((ROOT / path.partition("::")[0]).exists() for path in paths)
    elif words[0] in ("python", ".venv/bin/pre-commit"):
        assert words[0] != "python" or _script(words[1:])
    else:
        raise AssertionError(f"this test cannot check the command {words[0]}")


def _script(words: list[str]) -> bool:
    """Whether a script or module of this repository exists and has every option that is named."""
    if words[:3] == ["-X", "importtime", "run.py"]:
        return True
    module = words[0] == "-m"
    place = ROOT / "src" / words[1].replace(".", "/") if module else ROOT / words[0]
    source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text(encoding="utf-8")
    options = [word.partition("=")[0] for word in words[1 + module :] if word.startswith("--")]
    return all(f'"{option}"' in source for option in options)


def test_files_linked_in_the_readme_exist():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", TEXTS[0]):
        assert (ROOT / link).exists(), link


def test_the_readme_is_short():
    assert len(TEXTS[0].splitlines()) < 200
    assert all(len(line) <= 100 for line in TEXTS[0].splitlines())
