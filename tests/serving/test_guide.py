"""The examples of docs/guides/serving.md, as they are printed, with the port of the running service."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from warmstart.config.schema import OPTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_program_prints_the_summary_twice(service, capsys):
    (code,) = blocks("python")
    assert ADDRESS in code
    exec(code.replace(ADDRESS, service.url), {"__name__": "page"})
    whole, streamed = capsys.readouterr().out.splitlines()
    assert whole == streamed != ""


def test_the_curl_commands(service):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl ")]
    found = {}
    for line in commands:
        words = shlex.split(line.replace(ADDRESS, service.url))
        path = next(word for word in words if word.startswith(service.url)).removeprefix(service.url)
        command = [words[0], "--silent", "--show-error", "--fail", *words[1:]]
        found[path] = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found.keys() == {"/summarize", "/stream", "/health", "/metrics"}
    (example,) = blocks("json")
    assert json.loads(found["/summarize"]).keys() == json.loads(example).keys()
    assert json.loads(found["/stream"].splitlines()[-1])["summary"] == json.loads(found["/summarize"])["summary"]
    assert found["/health"] == "ok"
    named = set(re.findall(r"`(warmstart_\w+)`", PAGE))
    assert {name for name in named if f"\n# TYPE {name.removesuffix('_total')}" not in found["/metrics"]} - {
        name for name in named if f"\n# TYPE {name}" in found["/metrics"]
    } == set()


def test_every_option_and_the_extra_exist():
    assert set(re.findall(r"\b(serve\.\w+)", PAGE)) <= OPTIONS.keys()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert "serve" in extras


def test_the_image_starts_the_task_with_its_extra():
    image = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert "'.[serve]'" in image
    assert '"task=serve"' in image
    for names in re.findall(r"^COPY (.+) \S+$", image, flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in names.split())
