"""Where what was made once is kept between runs: tokens, texts, summaries, converted weights, compiled kernels."""

import os
from pathlib import Path


def cache_root(cache_dir: str | None = None) -> Path:
    """``cache_dir``, else ``$WARMSTART_CACHE``, else ``~/.cache/warmstart``."""
    chosen = cache_dir or os.environ.get("WARMSTART_CACHE") or "~/.cache/warmstart"
    return Path(chosen).expanduser()
