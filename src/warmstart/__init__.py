"""Any pretrained encoder x any pretrained decoder, joined, fine-tuned and judged honestly.

    from warmstart import EncoderDecoderConfig, EncoderDecoderModel

The two names load torch and transformers on first use, so that ``run.py --help`` stays instant. ``import warmstart`` is
enough for transformers' ``AutoModelForSeq2SeqLM`` to open our checkpoints.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from warmstart.auto_classes import register_with_transformers

if TYPE_CHECKING:
    from warmstart.model.config import EncoderDecoderConfig
    from warmstart.model.modeling import EncoderDecoderModel

__version__ = "0.1.0"
__all__ = ["EncoderDecoderConfig", "EncoderDecoderModel", "__version__"]

_HOME = {"EncoderDecoderConfig": "warmstart.model.config", "EncoderDecoderModel": "warmstart.model.modeling"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import_module(_HOME["EncoderDecoderModel"])  # registers both, whichever is used first
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'warmstart' has no attribute {name!r}")


register_with_transformers()
