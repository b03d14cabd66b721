"""Submodels that keep a state in their modules during a call; they serve one thread at a time."""

import threading
from typing import Any

from transformers import PreTrainedModel

_KEEPS_STATE = {"recurrent_gemma"}  # its recurrent layers (transformers 5.23 and 5.24)
_LOCK = threading.RLock()


def serve_one_thread(submodel: PreTrainedModel) -> None:
    """Let only one thread at a time call a submodel that keeps a state in its modules; others are left as they are."""
    base: Any = submodel.base_model
    if submodel.config.model_type in _KEEPS_STATE and _acquire not in base._forward_pre_hooks.values():  # noqa: SLF001
        base.register_forward_pre_hook(_acquire)
        base.register_forward_hook(_release, always_call=True)


# Functions of this module, so that a model can be copied and pickled.
def _acquire(module: Any, args: Any) -> None:
    _LOCK.acquire()


def _release(module: Any, args: Any, output: Any) -> None:
    _LOCK.release()
