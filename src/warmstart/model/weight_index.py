"""Check the weight index of a sharded checkpoint; transformers also follows paths out of the folder."""

from pathlib import Path
from typing import Any

from warmstart.damaged_files import read_json
from warmstart.errors import UserError, listed


def check_weight_index(path: Any, hub: dict[str, Any]) -> None:
    """Check that the weight index of a local checkpoint names only files in the checkpoint's folder.

    Args:
        path: Hub id or folder.
        hub: Arguments that locate the files; only ``subfolder`` is used.

    Raises:
        UserError: The index names other files, or is corrupt.
    """
    indexes = [] if path is None else (Path(path) / hub.get("subfolder", "")).glob("*.index.json")
    for index in sorted(indexes):
        named = read_json(index).get("weight_map")
        files = set(map(str, named.values())) if isinstance(named, dict) else {""}
        if outside := sorted(file for file in files if Path(file).name != file or file in ("", "..") or "\\" in file):
            raise UserError(
                f"{index} names weights outside its own folder: {listed(outside)}. Someone may have tampered with the "
                "checkpoint; do not use it."
            )
