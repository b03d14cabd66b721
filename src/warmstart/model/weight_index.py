"""The index of a checkpoint in several files, which transformers follows wherever it leads."""

from pathlib import Path
from typing import Any

from warmstart.damaged_files import read_json
from warmstart.errors import UserError, listed


def check_weight_index(path: Any, hub: dict[str, Any]) -> None:
    """Refuse a local checkpoint whose index names weights outside of its folder.

    Raises:
        UserError: it does, or the index is damaged.
    """
    indexes = [] if path is None else (Path(path) / hub.get("subfolder", "")).glob("*.index.json")
    for index in sorted(indexes):
        named = read_json(index).get("weight_map")
        files = set(map(str, named.values())) if isinstance(named, dict) else {""}
        if outside := sorted(file for file in files if Path(file).name != file or file in ("", "..") or "\\" in file):
            raise UserError(
                f"{index} names weights that are not files of its folder: {listed(outside)}. The checkpoint was "
                "changed; do not use it."
            )
