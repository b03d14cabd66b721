"""The folder of caches: tokens, texts, summaries, converted weights, compiled kernels."""

import os
from pathlib import Path

from warmstart.errors import UserError


def cache_root(cache_dir: str | None = None) -> Path:
    """Return the folder of caches: ``cache_dir``, else ``$WARMSTART_CACHE``, else ``~/.cache/warmstart``.

    Raises:
        UserError: The folder is in a home directory, but none is known.
    """
    chosen = cache_dir or os.environ.get("WARMSTART_CACHE") or "~/.cache/warmstart"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise UserError(
            f"The folder of caches is {chosen}, but no home directory is known. Set $HOME or $WARMSTART_CACHE."
        ) from None
