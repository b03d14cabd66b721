"""Any pretrained encoder x any pretrained decoder, joined, fine-tuned and judged honestly.

    import warmstart
    from warmstart import EncoderDecoderConfig, EncoderDecoderModel, use_in_auto_classes

    run = warmstart.fit([("A long text.", "A summary."), ...], encoder="bert", decoder="gpt2")
    run.scores["rouge1"]
    warmstart.Summarizer.from_pretrained(run)("Another long text.")
    print(warmstart.compare(run, "runs/another"))

    warmstart.cpu.build()  # faster generation on a CPU with AVX-512: compiles kernels once, with g++
    warmstart.cpu.keep_freed_memory()  # faster training on a CPU, at a higher peak of memory

These names are imported on first use, so that ``run.py --help`` stays fast. The model needs torch and transformers;
only ``fit``, ``Summarizer``, ``TrainedRun`` and ``compare`` need Hydra, and only ``fit`` needs Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from warmstart.releases import warn_of_untried

if TYPE_CHECKING:
    from warmstart import cpu
    from warmstart.api.comparison import Comparison, ScoreDifference, compare
    from warmstart.api.fitting import fit
    from warmstart.api.summarizer import Summarizer
    from warmstart.api.trained_run import TrainedRun
    from warmstart.cpu import build as build_cpu_kernels
    from warmstart.cpu import keep_freed_memory
    from warmstart.errors import UserError
    from warmstart.model.auto_classes import use_in_auto_classes
    from warmstart.model.configuration import EncoderDecoderConfig
    from warmstart.model.decoder_only import DecoderOnlyModel
    from warmstart.model.modeling import EncoderDecoderModel

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "DecoderOnlyModel",
    "EncoderDecoderConfig",
    "EncoderDecoderModel",
    "ScoreDifference",
    "Summarizer",
    "TrainedRun",
    "UserError",
    "__version__",
    "build_cpu_kernels",
    "compare",
    "cpu",
    "fit",
    "keep_freed_memory",
    "use_in_auto_classes",
]

_HOME = {
    "Comparison": ("warmstart.api.comparison", "Comparison"),
    "DecoderOnlyModel": ("warmstart.model.decoder_only", "DecoderOnlyModel"),
    "EncoderDecoderConfig": ("warmstart.model.configuration", "EncoderDecoderConfig"),
    "EncoderDecoderModel": ("warmstart.model.modeling", "EncoderDecoderModel"),
    "ScoreDifference": ("warmstart.api.comparison", "ScoreDifference"),
    "Summarizer": ("warmstart.api.summarizer", "Summarizer"),
    "TrainedRun": ("warmstart.api.trained_run", "TrainedRun"),
    "UserError": ("warmstart.errors", "UserError"),
    "build_cpu_kernels": ("warmstart.cpu", "build"),
    "compare": ("warmstart.api.comparison", "compare"),
    "fit": ("warmstart.api.fitting", "fit"),
    "keep_freed_memory": ("warmstart.cpu", "keep_freed_memory"),
    "use_in_auto_classes": ("warmstart.model.auto_classes", "use_in_auto_classes"),
}

warn_of_untried()


def __getattr__(name: str) -> Any:
    if name == "cpu":
        return import_module("warmstart.cpu")
    if name in _HOME:
        module, attribute = _HOME[name]
        if module.startswith("warmstart.model."):
            import_module("warmstart.model.modeling")  # registers config and model, whichever name is used first
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'warmstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
