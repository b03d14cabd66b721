"""Load one tokenizer from the hub, a local folder or an installed package, or train one for random weights.

load_tokenizer(settings.encoder, "encoder", texts)
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from warmstart.config.model import PACKAGE_FILE, Scale, SubmodelSettings, Weights
from warmstart.data.hub_access import Unreachable, hub_reachable, is_cached
from warmstart.data.tokenization.train import trained_tokenizer
from warmstart.errors import UserError, says_nothing_of_the_file

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
_log = logging.getLogger(__name__)


def load_tokenizer(settings: SubmodelSettings, role: str, texts: Callable[[], Iterable[str]]) -> Any:
    """Load the tokenizer of an encoder or decoder.

    Args:
        settings: The settings of the encoder or decoder.
        role: ``encoder`` or ``decoder``, for messages.
        texts: Returns the training texts; called only if a tokenizer must be trained.

    Raises:
        UserError: The tokenizer is not available.
    """
    if settings.scale is Scale.tiny and not (settings.tokenizer and _is_local(settings.tokenizer)):
        return _trained(settings, role, texts)
    location, revision = _location(settings)
    if _is_local(location):
        from warmstart.model.assets import resolve_path

        return tokenizer_from_folder(resolve_path(location), role)
    found = _from_hub(location, revision, role)
    if found is not None:
        return found
    if settings.weights is Weights.random:
        _log.warning(
            "%s=%s: the tokenizer of %s is not available; training one on the training texts instead.",
            *(role, settings.name, location),
        )
        return _trained(settings, role, texts)
    raise Unreachable(f"{role}={settings.name} ({location})")


def is_on_this_machine(settings: SubmodelSettings) -> bool:
    """Return whether the tokenizer of a pretrained submodel can be loaded without a download."""
    location, revision = _location(settings)
    if _is_local(location):
        return location.startswith(PACKAGE_FILE) or Path(location).expanduser().exists()
    return is_cached(location, revision, _FILES)


def _location(settings: SubmodelSettings) -> tuple[str, str]:
    """Return the path or hub id of a tokenizer, and its revision on the hub."""
    if settings.tokenizer is None:
        return settings.path, settings.revision
    return settings.tokenizer, "main"


def _trained(settings: SubmodelSettings, role: str, texts: Callable[[], Iterable[str]]) -> Any:
    from warmstart.model.submodel_config import with_model_type

    return trained_tokenizer(with_model_type(settings, role), texts())


def _is_local(location: str) -> bool:
    return location.startswith((PACKAGE_FILE, ".", "/", "~")) or os.path.exists(location)


def _from_hub(location: str, revision: str, role: str) -> Any:
    """Load a tokenizer from the hub or its cache; None if the hub is unreachable and the cache lacks it."""
    from transformers import AutoTokenizer

    online = hub_reachable()
    try:
        with errors_of_the_library(role):
            return AutoTokenizer.from_pretrained(
                location, revision=revision, local_files_only=not online, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        if not online:
            return None
        raise UserError(
            f"{role}: no tokenizer can be loaded from the hub for {location!r} (revision {revision!r}): "
            f"{str(error).strip().splitlines()[0]} Check the id and the revision; log in with `hf auth login` if the "
            f"repository is gated; or set {role}.tokenizer to another id or a local folder."
        ) from error


def tokenizer_from_folder(location: str, role: str) -> Any:
    """Load a tokenizer from a local folder or a GGUF file.

    Args:
        location: The path.
        role: ``encoder`` or ``decoder``, for messages.

    Raises:
        UserError: There is no such path, or no tokenizer that can be loaded.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer

    path = Path(location).expanduser()
    if not path.exists():
        raise UserError(f"{role}: the tokenizer's path {location} does not exist. Check the path.")
    folder, options = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
    try:
        if (folder / "encoder.json").is_file() and (folder / "vocab.bpe").is_file():  # OpenAI's names for GPT-2's files
            vocab = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
            lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
            merges: Any = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
            return GPT2Tokenizer(vocab=vocab, merges=merges)
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_of_the_library(error)):
            raise
        if says_nothing_of_the_file(error) and not isinstance(error, ImportError):
            raise
        files = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise UserError(
            f"{role}: no tokenizer can be loaded from {location} (it contains {files}): "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0]} "
            f"Put tokenizer.json next to the weights, or set {role}.tokenizer to a hub id or folder that has one."
        ) from error


def _is_of_the_library(error: BaseException) -> bool:
    """Return whether an error comes from Rust: a bare ``Exception``, or a panic, whose type cannot be imported."""
    return type(error) is Exception or type(error).__name__ == "PanicException"


@contextlib.contextmanager
def errors_of_the_library(role: str) -> Iterator[None]:
    """Turn errors of the tokenizers library into an error that names the tokenizer."""
    try:
        yield
    except BaseException as error:
        if not _is_of_the_library(error):
            raise
        raise UserError(
            f"{role}: the tokenizers library failed with this tokenizer: {str(error).splitlines()[0][:200]}. Its "
            f"tokenizer.json is damaged or incompatible. Set {role}.tokenizer to another hub id or folder."
        ) from None
