"""Files of json lines, each of a step, that a fit appends to and a resumed one goes on in."""

import json
import math
from pathlib import Path

from warmstart.atomic import write_text


def keep_only_before(path: Path, step: int) -> None:
    """Drop the lines of ``step`` and later, which a fit that goes on from there writes again.

    A killed fit can leave half a line, and a full disk, too; that goes as well.
    """
    if not path.exists():
        return
    *lines, half = path.read_text(encoding="utf-8", errors="replace").split("\n")
    kept = [line for line in lines if _step_of(line) < step]
    if half or len(kept) < len(lines):
        write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step that a line is of; infinity, which no fit reaches, where the line is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
