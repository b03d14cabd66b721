"""List the licence that each pinned dependency states; fail on one that Apache-2.0 software cannot be built on.

    python .ci/licences.py

Permissive licences, the MPL and the LGPL are fine for a dependency that is installed and not copied in.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

PINS = Path(__file__).parents[1] / "constraints.txt"
FINE = r"apache|\bmit\b|\bbsd|\bisc\b|mpl|mozilla|python|\bpsf|unlicen[cs]e|zlib|hpnd|cc0|public domain|0bsd|bsl-1|lgpl"
TOOLS = {"codespell"}  # GPL, but only run as a program by pre-commit: never imported, and not installed with warmstart
NOT_FINE = r"\bagpl|\bgpl|\bgeneral public|proprietary|commercial|sspl|busl"


def licence(name: str) -> str:
    """Return what a distribution states: its expression, else its classifiers, else the first line of the field."""
    about = metadata(name)
    entries = (entry.split(" :: ") for entry in about.get_all("Classifier", []))
    classified = [entry[-1] for entry in entries if entry[0] == "License" and entry[-1] != "OSI Approved"]
    stated = (about["License"] or "").strip().splitlines() or [""]
    return about["License-Expression"] or " AND ".join(classified) or stated[0]


def compatible(stated_licence: str) -> bool:
    """Whether every part of an ``AND``, and one part of each ``OR``, is fine."""
    parts = re.split(r"\band\b|,|;", stated_licence.lower().replace("(", "").replace(")", ""))
    return bool(stated_licence) and all(
        any(re.search(FINE, choice) and not re.search(NOT_FINE, choice) for choice in re.split(r"\bor\b", part))
        for part in parts
    )


def main() -> int:
    wrong, absent = [], 0
    for line in PINS.read_text().split():
        name = line.partition("==")[0]
        try:
            stated_licence = licence(name)
        except PackageNotFoundError:  # a pin of another platform
            absent += 1
            continue
        print(f"{line:50} {stated_licence or 'none stated'}")
        if not compatible(stated_licence) and name not in TOOLS:
            wrong.append(line)
    print(f"{absent} pins are not installed here.")
    if wrong:
        print(f"Not known to be compatible with Apache-2.0: {', '.join(wrong)}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
