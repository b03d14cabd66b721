"""Convert a GGUF file to a checkpoint folder, cached by the file's hash.

transformers dequantizes slowly and cannot save the model that it loaded, so the values are copied to a model built from
the config. The folder contains the tokenizer, and the weights in the dtype that transformers dequantizes to.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.atomic import has_listed_files, list_files, replacing_folder
from warmstart.cache import cache_root
from warmstart.errors import UserError, install_extra
from warmstart.locks import locked
from warmstart.model.adapters import NO_ADAPTER

_log = logging.getLogger(__name__)


def converted(file: Path) -> Path:
    """Return the checkpoint folder of a GGUF file, and convert the file first if needed.

    Several processes may call this at the same time; one of them converts.

    Raises:
        UserError: The file is missing or corrupt, or the packages that read GGUF are not installed.
    """
    if not file.is_file():
        raise UserError(f"{file} does not exist. Correct the path.")
    folder = cache_root() / "gguf" / f"{file.stem}-{_hash(file)}"
    if has_listed_files(folder):
        return folder
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not has_listed_files(folder):  # another process may have converted it meanwhile
            _log.warning("Converting %s to %s, once; this may take a minute.", file.name, folder)
            with replacing_folder(folder) as partial:
                _convert(file, partial)
                list_files(partial)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_bounds(file)
    try:
        # An adapter in the same folder does not belong to this file.
        loaded = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, trust_remote_code=False, adapter_kwargs=dict(NO_ADAPTER)
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except ImportError as error:
        raise _without_packages(file) from error
    except MemoryError:
        raise
    except Exception as error:  # transformers raises many types of errors for invalid metadata
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


def _without_packages(file: Path) -> UserError:
    return UserError(f"{file}: reading GGUF needs the packages gguf and accelerate. {install_extra('gguf')}.")


def _check_bounds(file: Path) -> None:
    """Check the header, and that no tensor reaches beyond the end of the file.

    Raises:
        UserError: The file is corrupt.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise _without_packages(file) from error

    class Bounded(GGUFReader):
        # GGUFReader returns empty arrays beyond the end of the file, and for a corrupt length of 2**60 it would append
        # them until memory is full.
        def _get(self, offset: Any, dtype: Any, count: Any = 1, *args: Any, **kwargs: Any) -> Any:
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError(f"a part at byte {int(offset):,} reaches beyond its end")
            return super()._get(offset, dtype, count, *args, **kwargs)

    try:
        Bounded(file)
    except Exception as error:  # numpy raises many types; a MemoryError comes from a corrupt size
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"{file} cannot be read as GGUF: {reason}. It may be corrupt or truncated; download it again.")


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
