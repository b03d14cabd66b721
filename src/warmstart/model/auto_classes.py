"""What transformers' auto classes open once this model is imported: our checkpoints as our class, others as before.

    from warmstart import EncoderDecoderModel                 # registers
    AutoModelForSeq2SeqLM.from_pretrained("runs/a/export")    # EncoderDecoderModel of warmstart
    AutoModelForSeq2SeqLM.from_pretrained("stock/bert2bert")  # EncoderDecoderModel of transformers
    warmstart.use_in_auto_classes("none")                     # transformers' class for both

Both libraries write ``model_type: encoder-decoder``, which ``AutoConfig`` maps to one class for the whole process. Ours
is known by the field ``graft``, which every config of ours has written since the first release, also where it is null.
"""

from typing import Any

from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers import EncoderDecoderConfig as StockConfig

from warmstart.model.configuration import EncoderDecoderConfig

CHECKPOINTS = ("own", "all", "none")
_OF_OURS = "graft"


class _ConfigOfCheckpoint:
    """Stands in ``AutoConfig``'s mapping where one class is expected, and makes the config that a checkpoint needs."""

    model_type = EncoderDecoderConfig.model_type
    opened_here = "own"

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return (EncoderDecoderConfig if cls.opened_here == "all" else StockConfig)(*args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        is_ours = cls.opened_here == "all" or (cls.opened_here == "own" and _OF_OURS in config_dict)
        return (EncoderDecoderConfig if is_ours else StockConfig).from_dict(config_dict, **kwargs)


def register(model_class: Any) -> None:
    """Let the auto classes know our config and ``model_class``; a stock config still makes transformers' class."""
    AutoConfig.register(_ConfigOfCheckpoint.model_type, _ConfigOfCheckpoint, exist_ok=True)
    AutoModelForSeq2SeqLM.register(EncoderDecoderConfig, model_class, exist_ok=True)


def use_in_auto_classes(checkpoints: str) -> None:
    """Choose which encoder-decoder checkpoints the auto classes of this process open as warmstart's class.

    Args:
        checkpoints: ``own`` (the default): those that warmstart wrote; ``all``: transformers' as well; ``none``.

    Raises:
        ValueError: ``checkpoints`` is something else.
    """
    if checkpoints not in CHECKPOINTS:
        raise ValueError(f"use_in_auto_classes({checkpoints!r}): choose one of {', '.join(CHECKPOINTS)}.")
    _ConfigOfCheckpoint.opened_here = checkpoints
