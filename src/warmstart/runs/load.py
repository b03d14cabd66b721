"""Load a trained model and its tokenizers from a run directory, a checkpoint file or an export."""

from typing import Any

from warmstart.config.bounds import faults_of_search
from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.runs.saved_model import SavedModel, Trained


def load_writer(settings: Config, saved: SavedModel | None = None) -> tuple[Any, Any]:
    """Load the model that ``ckpt`` names for generation: on its device, in ``generation.dtype``.

    Args:
        settings: the config of the task.
        saved: the model that ``ckpt`` names, if the caller has opened it.

    Returns:
        The model and its ``TokenizerPair``.

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
    model, tokenizers, _ = (saved or SavedModel(settings.ckpt)).load()
    refuse_nonfinite(f"ckpt={settings.ckpt}", model)
    check_search(settings, model)
    if torch.cuda.is_available() and settings.trainer.accelerator != "cpu":
        model.cuda()
    else:
        cpu.build()
    to_dtype(model, getattr(torch, settings.generation.dtype))
    return model, tokenizers


def check_search(settings: Config, model: Any) -> None:
    """Check that the loaded decoder supports the configured search.

    Raises:
        UserError: it has too few positions or tokens.
    """
    from warmstart.model.submodel_config import maximum_positions

    decoder = model.config.decoder
    prompt = len(model.config.prompt_ids or [])
    about = settings.decoder.name, maximum_positions(decoder), decoder.vocab_size, prompt
    if found := faults_of_search(settings.generation, *about):
        raise UserError(" ".join(found))


def refuse_nonfinite(given: str, model: Any) -> None:
    """Check that all weights are finite; otherwise texts and exports would still look valid.

    Args:
        given: how the command line names the model, for the message: "ckpt=runs/demo".
        model: the model.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise UserError(
            f"{given}: {len(bad)} of its tensors contain NaN or infinity, such as {bad[0]}: training diverged. Nothing "
            "was written. Name an earlier checkpoint, or train again with lower learning rates (optim.*)."
        )


def load_trained(path: str) -> Trained:
    """Load a trained model and its tokenizers.

    Args:
        path: a run directory, a checkpoint file or an exported folder.

    Returns:
        The model in evaluation mode, its ``TokenizerPair``, and the folder of the run or export.

    Raises:
        UserError: the path does not exist, the model is damaged or was not written by warmstart, or its tokenizers are
            missing.
    """
    return SavedModel(path).load()
