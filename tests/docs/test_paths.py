"""Every path that README, docs/ and the sources name exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "warmstart"
OF_ROOT = ("src", "tests", "docs", "conf", "benchmarks", "notebooks", ".ci", ".github")
# On a page, runs/ is the user's folder of runs.
OF_PACKAGE = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir()} - {"runs", "__pycache__"}


def _pages():
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]


def test_paths_in_pages_exist():
    missing = []
    for page in _pages():
        if page.name.upper() == "CHANGELOG.MD":  # names files that were removed
            continue
        for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", page.read_text(encoding="utf-8")):
            first = path.partition("/")[0]
            parent = ROOT if first in OF_ROOT else PACKAGE if first in OF_PACKAGE else None
            if parent is not None and "NAME" not in path and not (parent / path).exists():
                missing.append(f"{page.relative_to(ROOT)}: {path}")
    assert not missing, "\n".join(missing)


def test_pages_named_in_sources_exist():
    sources = [path for folder in ("src", "tests", "conf", "benchmarks", ".ci") for path in (ROOT / folder).rglob("*")]
    missing = []
    for path in [*sources, ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "mkdocs.yml"]:
        if not path.is_file() or path.suffix in (".pyc", ".safetensors", ".json"):
            continue
        for page in re.findall(r"\bdocs/[\w/]+\.(?:md|html|txt|svg|yaml)", path.read_text(encoding="utf-8")):
            if not (ROOT / page).exists():
                missing.append(f"{path.relative_to(ROOT)}: {page}")
    assert not missing, "\n".join(missing)


def test_link_targets_exist():
    """README and the files next to it are read on a code host, too; mkdocs only checks links inside docs/."""
    missing = []
    for page in _pages():
        for link in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not (page.parent / link).exists():
                missing.append(f"{page.relative_to(ROOT)}: {link}")
    assert not missing, "\n".join(missing)
