"""Where what was made once is kept between runs: tokens, texts, summaries, converted weights, compiled kernels."""

import os
from pathlib import Path

from warmstart.errors import UserError


def cache_root(cache_dir: str | None = None) -> Path:
    """``cache_dir``, else ``$WARMSTART_CACHE``, else ``~/.cache/warmstart``.

    Raises:
        UserError: that folder is in a home directory, and the user has none.
    """
    chosen = cache_dir or os.environ.get("WARMSTART_CACHE") or "~/.cache/warmstart"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise UserError(
            f"The folder of caches is {chosen}, and no home directory is known. Set $HOME or $WARMSTART_CACHE."
        ) from None
