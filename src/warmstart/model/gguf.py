"""A GGUF file as a half: dequantised once into an ordinary checkpoint folder, cached by the file's hash.

transformers takes half a minute to dequantise 135M parameters and cannot save what it loaded, so the values go into a
model built from the config alone. The folder holds weights in the file's own precision of arithmetic (bfloat16 loses
nothing that four bits kept) and the tokenizer.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.atomic import has_listed_files, list_files, replacing_folder
from warmstart.cache import cache_root
from warmstart.errors import UserError
from warmstart.locks import locked
from warmstart.model.adapters import NO_ADAPTER

_log = logging.getLogger(__name__)


def converted(file: Path) -> Path:
    """The folder of ``file``'s checkpoint, made where it is not there yet; two processes may ask at once.

    Raises:
        UserError: the file is missing or damaged, or the packages that read GGUF are not installed.
    """
    if not file.is_file():
        raise UserError(f"{file} was asked for, but it does not exist.")
    folder = cache_root() / "gguf" / f"{file.stem}-{_hash(file)}"
    if has_listed_files(folder):
        return folder
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not has_listed_files(folder):  # another process may have been first
            _log.warning("Converting %s once (about half a minute) into %s", file.name, folder)
            with replacing_folder(folder) as partial:
                _convert(file, partial)
                list_files(partial)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_parts(file)
    try:
        # An adapter that lies in the folder is not the file's.
        loaded = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, trust_remote_code=False, adapter_kwargs=dict(NO_ADAPTER)
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except ImportError as error:
        raise UserError(f"{file}: reading GGUF needs two more packages: pip install gguf accelerate") from error
    except MemoryError:
        raise
    except Exception as error:  # what transformers raises for metadata that it cannot use has no common type
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _unreadable(file, error) from error
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=loaded.dtype, trust_remote_code=False)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check_parts(file: Path) -> None:
    """Raise a :class:`UserError` where a header is damaged, or a tensor reaches beyond the end of the file."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UserError(f"{file}: reading GGUF needs two more packages: pip install gguf accelerate") from error

    class Bounded(GGUFReader):
        # The reader's own method: beyond the end of the file it gives empty arrays, and a damaged length of 2**60 has
        # it append those until the memory is full.
        def _get(self, offset: Any, dtype: Any, count: Any = 1, *args: Any, **kwargs: Any) -> Any:
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError(f"a part at byte {int(offset):,} reaches beyond its end")
            return super()._get(offset, dtype, count, *args, **kwargs)

    try:
        Bounded(file)
    except Exception as error:  # numpy's are of many types; nothing is allocated here, so that MemoryError is one
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"{file} cannot be read as GGUF, it may be damaged or cut short ({reason}). Download it again.")


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
