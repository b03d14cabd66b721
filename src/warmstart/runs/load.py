"""A trained model and its tokenizers from what a user names: a run directory, a checkpoint file or an export."""

from typing import Any

from warmstart.config.bounds import faults_of_search
from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.runs.saved_model import SavedModel, Trained


def load_writer(settings: Config, saved: SavedModel | None = None) -> tuple[Any, Any]:
    """Load the model of ``ckpt`` to its device, in the dtype that ``generation`` names, and its tokenizers.

    Args:
        settings: the config of the task.
        saved: what ``ckpt`` names, where it is open already.

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


def load_trained(path: str) -> Trained:
    """Load the model that a path names, for those who need nothing else of it.

    Raises:
        UserError: nothing is there, it is damaged or not ours, or its tokenizers are missing.
    """
    return SavedModel(path).load()
