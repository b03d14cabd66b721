"""A trained model and its tokenizers from what a user names: a run directory, a checkpoint file or an export."""

from pathlib import Path
from typing import Any

from warmstart.errors import UserError


def load_trained(path: str) -> tuple[Any, Any, Path]:
    """The model (in evaluation mode), the tokenizer pair, and the run directory or export folder.

    Raises:
        UserError: nothing is there, it is damaged, or its tokenizers are missing.
    """
    import pickle

    import torch

    from warmstart.data.tokenizers import TokenizerPair
    from warmstart.model.config import EncoderDecoderConfig
    from warmstart.model.modeling import EncoderDecoderModel

    given = Path(path)
    if not given.exists():
        raise UserError(f"ckpt={path} was asked for, but nothing is there. Name a run directory, a .ckpt or an export.")
    if (given / "config.json").exists():
        return EncoderDecoderModel.from_pretrained(given).eval(), TokenizerPair.load(given), given
    file = given
    if given.is_dir():
        found = [given / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
        file = next((candidate for candidate in found if candidate.exists()), found[0])
        if not file.exists():
            raise UserError(f"ckpt={path}: {given} holds neither an export (config.json) nor checkpoints/best.ckpt.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        config = EncoderDecoderConfig(**checkpoint["hyper_parameters"]["model_config"])
        model = EncoderDecoderModel(config)
        weights = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        model.load_state_dict(weights)
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"ckpt={path}: {file} is damaged or not ours ({str(error).splitlines()[0]}).") from error
    return model.eval(), TokenizerPair.load(file.parent / "tokenizers"), file.parents[1]
