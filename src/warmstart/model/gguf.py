"""A GGUF file as a half: dequantised once into an ordinary checkpoint folder, cached by the file's hash.

transformers takes half a minute to dequantise 135M parameters and cannot save what it loaded, so the values go into a
model built from the config alone. The folder holds weights in the file's own precision of arithmetic (bfloat16 loses
nothing that four bits kept) and the tokenizer.
"""

import hashlib
import logging
from pathlib import Path

from warmstart.atomic import replacing_folder
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
    if (folder / "config.json").exists():
        return folder
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not (folder / "config.json").exists():  # another process may have been first
            _log.warning("Converting %s once (about half a minute) into %s", file.name, folder)
            with replacing_folder(folder) as partial:
                _convert(file, partial)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        # An adapter that lies in the folder is not the file's.
        loaded = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, trust_remote_code=False, adapter_kwargs=dict(NO_ADAPTER)
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except ImportError as error:
        raise UserError(f"{file}: reading GGUF needs two more packages: pip install gguf accelerate") from error
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{file} cannot be read as GGUF: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(loaded)._from_config(config, dtype=loaded.dtype)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
