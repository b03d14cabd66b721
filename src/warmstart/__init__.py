"""Any pretrained encoder x any pretrained decoder, joined, fine-tuned and judged honestly.

    from warmstart import EncoderDecoderConfig, EncoderDecoderModel, use_in_auto_classes

These names load torch and transformers on first use, so that ``run.py --help`` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from warmstart.releases import warn_of_untried

if TYPE_CHECKING:
    from warmstart.model.auto_classes import use_in_auto_classes
    from warmstart.model.config import EncoderDecoderConfig
    from warmstart.model.modeling import EncoderDecoderModel

__version__ = "0.1.0"
__all__ = ["EncoderDecoderConfig", "EncoderDecoderModel", "__version__", "use_in_auto_classes"]

_HOME = {
    "EncoderDecoderConfig": "warmstart.model.config",
    "EncoderDecoderModel": "warmstart.model.modeling",
    "use_in_auto_classes": "warmstart.model.auto_classes",
}

warn_of_untried()


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'warmstart' has no attribute {name!r}")
