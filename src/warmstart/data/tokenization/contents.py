"""What a tokenizer contains: whether it has a vocabulary, and what decides its ids."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from warmstart.errors import UserError


def contents_of(tokenizer: Any) -> bytes:
    """Return what decides the ids of a tokenizer as bytes, the same on every machine."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _saved(tokenizer)
    state = json.loads(backend.to_str())
    # Each call stores its truncation and padding in the backend, which do not belong to the tokenizer.
    state.pop("truncation", None)
    state.pop("padding", None)
    return json.dumps(state, sort_keys=True).encode()


def _saved(tokenizer: Any) -> bytes:
    """Return the contents of a Python tokenizer: its saved files, since ids depend on merges and options too."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    options = json.loads(files.pop("tokenizer_config.json", b"{}"))
    # How the tokenizer was loaded differs between runs and does not belong to it.
    for name in ("is_local", "local_files_only"):
        options.pop(name, None)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    # Some tokenizers save a copy of the files on disk, so the vocabulary in memory is added.
    return json.dumps([type(tokenizer).__name__, tokenizer.get_vocab(), options, hashes], sort_keys=True).encode()


def assert_not_empty(tokenizer: Any, role: str) -> None:
    """Check that a tokenizer has more than special tokens.

    Raises:
        UserError: It is empty.
    """
    specials = len(set(tokenizer.all_special_ids))
    if len(tokenizer) <= specials:
        raise UserError(
            f"{role}: the tokenizer ({type(tokenizer).__name__}) is empty: {len(tokenizer)} entries, {specials} of "
            f"them special. Its folder lacks the vocabulary file. Set {role}.tokenizer to a complete one."
        )
