"""Any pretrained encoder x any pretrained decoder, joined, fine-tuned and judged honestly.

    import warmstart
    from warmstart import EncoderDecoderConfig, EncoderDecoderModel, use_in_auto_classes

    warmstart.cpu.build()  # faster generation on a CPU with AVX-512: compiles kernels once, with g++
    warmstart.cpu.keep_freed_memory()  # faster training on a CPU, at a higher peak of memory

These names import torch and transformers on first use, so that ``run.py --help`` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from warmstart.releases import warn_of_untried

if TYPE_CHECKING:
    from warmstart import cpu
    from warmstart.cpu import build as build_cpu_kernels
    from warmstart.cpu import keep_freed_memory
    from warmstart.model.auto_classes import use_in_auto_classes
    from warmstart.model.configuration import EncoderDecoderConfig
    from warmstart.model.modeling import EncoderDecoderModel

__version__ = "0.1.0"
__all__ = [
    "EncoderDecoderConfig",
    "EncoderDecoderModel",
    "__version__",
    "build_cpu_kernels",
    "cpu",
    "keep_freed_memory",
    "use_in_auto_classes",
]

_HOME = {
    "EncoderDecoderConfig": ("warmstart.model.configuration", "EncoderDecoderConfig"),
    "EncoderDecoderModel": ("warmstart.model.modeling", "EncoderDecoderModel"),
    "build_cpu_kernels": ("warmstart.cpu", "build"),
    "keep_freed_memory": ("warmstart.cpu", "keep_freed_memory"),
    "use_in_auto_classes": ("warmstart.model.auto_classes", "use_in_auto_classes"),
}

warn_of_untried()


def __getattr__(name: str) -> Any:
    if name == "cpu":
        return import_module("warmstart.cpu")
    if name in _HOME:
        import_module("warmstart.model.modeling")  # registers config and model, whichever name is used first
        module, attribute = _HOME[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'warmstart' has no attribute {name!r}")
