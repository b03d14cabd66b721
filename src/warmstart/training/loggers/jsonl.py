"""JSON lines files with a ``step`` in each line, to which a fit and its resumed successors append."""

import json
import math
from pathlib import Path

from warmstart.atomic import write_text


def keep_only_before(path: Path, step: int) -> None:
    """Drop the lines of ``step`` and later, which a fit that resumes at ``step`` writes again.

    An incomplete last line, left by a killed fit or a full disk, is dropped too.
    """
    if not path.exists():
        return
    *lines, half = path.read_text(encoding="utf-8", errors="replace").split("\n")
    kept = [line for line in lines if _step_of(line) < step]
    if half or len(kept) < len(lines):
        write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """Return the line's step, or infinity if the line is damaged, so that it is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
