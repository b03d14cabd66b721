"""A trained model and its tokenizers from what a user names: a run directory, a checkpoint file or an export."""

from pathlib import Path
from typing import Any

from warmstart.config.bounds import faults_of_search
from warmstart.config.schema import Config
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.runs.run_dir import CheckpointDir, RunDir


def load_writer(settings: Config) -> tuple[Any, Any]:
    """The model of ``ckpt`` on its device, in the type that ``generation`` names, and its tokenizers; for texts alone.

    Raises:
        UserError: there is no ``ckpt``, it cannot be loaded, or its weights are not finite.
    """
    import torch
    import transformers

    from warmstart import cpu
    from warmstart.model.dtypes import to_dtype

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if settings.ckpt is None:
        raise UserError(f"task={settings.task} needs ckpt=: a run directory, a .ckpt file or an exported folder.")
    model, tokenizers, _ = load_trained(settings.ckpt)
    refuse_nonfinite(f"ckpt={settings.ckpt}", model)
    check_search(settings, model)
    if torch.cuda.is_available() and settings.trainer.accelerator != "cpu":
        model.cuda()
    else:
        cpu.build()
    to_dtype(model, getattr(torch, settings.generation.dtype))
    return model, tokenizers


def check_search(settings: Config, model: Any) -> None:
    """Raise a :class:`UserError` where the decoder that was loaded cannot do the search that is asked for."""
    from warmstart.model.submodel_config import maximum_positions

    decoder = model.config.decoder
    about = settings.decoder.name, maximum_positions(decoder), decoder.vocab_size
    if found := faults_of_search(settings.generation, *about):
        raise UserError(" ".join(found))


def refuse_nonfinite(given: str, model: Any) -> None:
    """Raise a :class:`UserError` if a weight is NaN or infinite: texts and exports would look valid.

    ``given`` is the word of the command line that names the model.
    """
    bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise UserError(
            f"{given}: {len(bad)} of its tensors hold NaN or infinity, such as {bad[0]}: the training diverged. "
            "Nothing is written. Name an earlier checkpoint, or train again with lower rates (optim.*)."
        )


def scored_checkpoint(path: str) -> dict[str, str]:
    """Name and digest of the weights that ``path`` stands for: what a result says it is a result of."""
    from warmstart.runs.checkpoint_io import digest_of

    given = Path(path)
    if is_export(given):
        return {"name": "export", "sha256": digest_of(*sorted(given.glob("*.safetensors")))}
    _, file = open_checkpoint(path)
    return {"name": file.name, "sha256": digest_of(file)}


def load_trained(path: str) -> tuple[Any, Any, Path]:
    """The model (in evaluation mode), the tokenizer pair, and the run directory or export folder.

    Raises:
        UserError: nothing is there, it is damaged or not ours, or its tokenizers are missing.
    """
    from warmstart.data.tokenization.pair import TokenizerPair
    from warmstart.model.configuration import EncoderDecoderConfig
    from warmstart.model.modeling import EncoderDecoderModel
    from warmstart.runs.checkpoint_io import is_sound

    given = Path(path)
    if is_export(given):
        model = _load_export(path)
        tokenizers = TokenizerPair.load(given)
        _check_vocabularies(path, model, tokenizers)
        return model.eval(), tokenizers, given
    checkpoint, file = open_checkpoint(path)
    if not is_sound(file):
        raise UserError(f"ckpt={path}: {file} is damaged: its checksum is another. Name another checkpoint of the run.")
    try:
        model = EncoderDecoderModel(EncoderDecoderConfig(**checkpoint["hyper_parameters"]["model_config"]))
        weights = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        model.load_state_dict(weights)
    except Exception as error:  # a checkpoint that somebody changed raises dozens of unrelated types
        if says_nothing_of_the_file(error) or _is_as_written(file):
            raise
        raise _damaged(path, file, error) from error
    tokenizers = tokenizers_of(checkpoint, file)
    _check_vocabularies(path, model, tokenizers)
    return model.eval(), tokenizers, CheckpointDir(file.parent).run.path


def tokenizers_of(checkpoint: dict[str, Any], file: Path) -> Any:
    """The tokenizers that a checkpoint was trained with, which its run saved in the folder of the checkpoint.

    Args:
        checkpoint: what ``file`` holds.
        file: where the checkpoint is.

    Returns:
        A ``TokenizerPair``.

    Raises:
        UserError: they are missing, damaged, or not those of the checkpoint.
    """
    from warmstart.data.tokenization.pair import TokenizerPair

    folder = CheckpointDir(file.parent).tokenizers
    if not folder.is_dir():
        raise UserError(
            f"{file} was requested, but the tokenizers that it was trained with are missing: there is no {folder}. "
            "Copy that folder of its run there."
        )
    pair = TokenizerPair.load(folder)
    # Checkpoints of earlier versions do not name their vocabularies.
    if checkpoint["hyper_parameters"].get("vocabularies", pair.vocabularies()) != pair.vocabularies():
        raise UserError(
            f"{file} was trained with other vocabularies than those of the tokenizers in {folder}. Copy the folder of "
            "its run there."
        )
    return pair


def _load_export(path: str) -> Any:
    from warmstart.model.modeling import EncoderDecoderModel

    try:
        loaded: Any = EncoderDecoderModel.from_pretrained(path, use_safetensors=True, output_loading_info=True)
    except Exception as error:  # there is no checksum, and a damaged file raises dozens of unrelated types
        if says_nothing_of_the_file(error):
            raise
        raise _damaged(path, Path(path), error) from error
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise _damaged(path, Path(path), KeyError(f"{len(missing)} weights are not there, such as {missing[0]}"))
    return model


def _check_vocabularies(path: str, model: Any, tokenizers: Any) -> None:
    for role, tokenizer in (("encoder", tokenizers.source), ("decoder", tokenizers.target)):
        rows = getattr(model.config, role).vocab_size
        if len(tokenizer) > rows:
            raise UserError(
                f"ckpt={path}: its {role} knows {rows} tokens, but its {role}'s tokenizer has {len(tokenizer)}. They "
                "are not of one model; restore the folder of tokenizers."
            )


def open_checkpoint(path: str) -> tuple[dict[str, Any], Path]:
    """The checkpoint that ``path`` is, or the best one of the run directory that it is, and its file.

    Tensors stay on disk until they are used: reading the settings alone costs milliseconds.

    Raises:
        UserError: nothing is there, or it is damaged.
    """
    import torch

    given = Path(path)
    if not given.exists():
        raise UserError(
            f"ckpt={path} was asked for, but nothing is there. Name a run directory, a .ckpt or an export; "
            "ckpt=last is the last checkpoint of the run that name= says."
        )
    file = given
    if given.is_dir():
        folder = RunDir(given).checkpoints
        file = next((candidate for candidate in (folder.best, folder.last) if candidate.exists()), folder.best)
        if not file.exists():
            raise UserError(f"ckpt={path}: {given} holds neither an export (config.json) nor checkpoints/best.ckpt.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(checkpoint["hyper_parameters"], dict):
            raise TypeError("its hyper_parameters are no dict")
    except Exception as error:
        if says_nothing_of_the_file(error) or _is_as_written(file):
            raise
        raise _damaged(path, file, error) from error
    return checkpoint, file


def is_export(folder: Path) -> bool:
    """Whether ``task=export`` or ``save_pretrained`` wrote the folder."""
    return (folder / "config.json").exists()


def _is_as_written(file: Path) -> bool:
    """Whether the checksum is there and agrees: whatever fails then is no fault of the file."""
    from warmstart.runs.checkpoint_io import is_sound, read_sums

    return file.name in read_sums(file.parent) and is_sound(file)


def _damaged(path: str, file: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"ckpt={path}: {file} is damaged or not ours ({reason}). debug=true shows the traceback.")
