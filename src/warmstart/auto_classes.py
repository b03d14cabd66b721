"""Let transformers' Auto classes open our checkpoints after ``import warmstart``, in either order of the two imports.

Registering imports torch and transformers, which takes seconds, and ``run.py --help`` has to stay instant. So it waits
for ``transformers.models.auto.modeling_auto``; transformers knows no entry points and registers classes, not names.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_AUTO = "transformers.models.auto.modeling_auto"
_OURS = "warmstart.model.modeling"  # registers its classes as it is imported


class _Registering(MetaPathFinder):
    """Finds one module, once, and has our classes imported after it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AUTO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and isinstance(spec.loader, Loader):
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if not _one_of_ours_is_half_imported():  # it asked for this module, and cannot be imported in a circle
                    import_module(_OURS)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _one_of_ours_is_half_imported() -> bool:
    """Whether a module of the model is being imported; ``_initializing`` is where importlib notes it, and no API is."""
    ours = [module for name, module in list(sys.modules.items()) if name.startswith("warmstart.model.")]
    return any(getattr(module.__spec__, "_initializing", False) for module in ours)


def register_with_transformers() -> None:
    """Register now where transformers' Auto classes are imported already, else as soon as they are."""
    if _AUTO in sys.modules:
        import_module(_OURS)
    elif not any(isinstance(finder, _Registering) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Registering())
