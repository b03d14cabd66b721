"""Register the joint model with transformers' auto classes, for warmstart's own checkpoints.

    from warmstart import EncoderDecoderModel                 # registers
    AutoModelForSeq2SeqLM.from_pretrained("runs/a/export")    # EncoderDecoderModel of warmstart
    AutoModelForSeq2SeqLM.from_pretrained("stock/bert2bert")  # EncoderDecoderModel of transformers
    warmstart.use_in_auto_classes("none")                     # transformers' class for both

Both libraries write ``model_type: encoder-decoder``, and ``AutoConfig`` maps it to one class. A checkpoint of warmstart
is recognized by the field ``graft``, which all of them have, even if it is null.
"""

from typing import Any

from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers import EncoderDecoderConfig as StockConfig

from warmstart.model.configuration import EncoderDecoderConfig

CHECKPOINTS = ("own", "all", "none")
_OUR_FIELD = "graft"


class _ConfigOfCheckpoint:
    """Entry of ``AutoConfig``'s mapping that builds transformers' config or ours, depending on the checkpoint."""

    model_type = EncoderDecoderConfig.model_type
    opened_here = "own"

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return (EncoderDecoderConfig if cls.opened_here == "all" else StockConfig)(*args, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        is_ours = cls.opened_here == "all" or (cls.opened_here == "own" and _OUR_FIELD in config_dict)
        return (EncoderDecoderConfig if is_ours else StockConfig).from_dict(config_dict, **kwargs)


def register(model_class: Any) -> None:
    """Register our config and ``model_class``; a config of transformers still selects transformers' class."""
    AutoConfig.register(_ConfigOfCheckpoint.model_type, _ConfigOfCheckpoint, exist_ok=True)
    AutoModelForSeq2SeqLM.register(EncoderDecoderConfig, model_class, exist_ok=True)


def use_in_auto_classes(checkpoints: str) -> None:
    """Choose which encoder-decoder checkpoints the auto classes of this process open as warmstart's class.

    Args:
        checkpoints: ``own`` (the initial value): those that warmstart wrote; ``all``: also those of transformers;
            ``none``: no checkpoint.

    Raises:
        ValueError: ``checkpoints`` is another value.
    """
    if checkpoints not in CHECKPOINTS:
        raise ValueError(f"checkpoints is {checkpoints!r}. Choose one of {', '.join(CHECKPOINTS)}.")
    _ConfigOfCheckpoint.opened_here = checkpoints
