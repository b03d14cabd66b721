"""Locate weights and tokenizers: hub ids, folders, GGUF files, and files in installed packages."""

import importlib.metadata
from pathlib import Path

from warmstart.config.asset_packages import install_command
from warmstart.config.model import PACKAGE_FILE
from warmstart.errors import UserError
from warmstart.model.gguf import converted


def resolve_path(path: str) -> str:
    """Return the path or hub id that transformers can open.

    Args:
        path: A hub id, a folder, a GGUF file, or ``package_file:DISTRIBUTION/PATH`` for a file or folder in an
            installed package.

    Returns:
        The path in the package, the folder of the converted GGUF file, or ``path`` itself.

    Raises:
        UserError: The package is not installed, or the file does not exist.
    """
    if not path.startswith(PACKAGE_FILE):
        return str(converted(Path(path).expanduser())) if path.endswith(".gguf") else path
    name, _, inside = path.removeprefix(PACKAGE_FILE).partition("/")
    try:
        found = Path(str(importlib.metadata.distribution(name).locate_file(inside)))
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{path} needs the package {name!r}, which is not installed. Install it with: {install_command(name)}"
        ) from None
    if not found.exists():
        raise UserError(f"{path} does not exist: the installed package {name!r} has no {inside!r}.")
    return str(converted(found) if found.suffix == ".gguf" else found)
