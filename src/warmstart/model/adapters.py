"""Adapters of a checkpoint (``adapter_config.json``): merged into the weights when a submodel is loaded, by peft.

transformers' ``from_pretrained`` loads such an adapter as modules of its own. Whatever is saved then has names that no
config explains, and the parameters that the checkpoint itself lacks are no longer reported.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import find_adapter_config_file

from warmstart.compat.transformers import forget_adapters
from warmstart.errors import UserError

_log = logging.getLogger(__name__)

# from_pretrained has no switch for it; it finds no adapter in a folder that is not there.
NO_ADAPTER = {"subfolder": "no_adapter"}
_HUB_ARGUMENTS = ("revision", "cache_dir", "local_files_only", "token", "subfolder")


def hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a ``from_pretrained`` that say where its files are."""
    return {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name) is not None}


def find_adapter(path: Any, hub: dict[str, Any]) -> str | None:
    """The ``adapter_config.json`` of a folder or hub id; None where there is none."""
    return None if path is None else find_adapter_config_file(str(path), **hub)


def is_whole(path: Any, hub: dict[str, Any]) -> bool:
    """Whether a folder or hub id has a ``config.json``, so that it is not an adapter only."""
    try:
        return bool(PreTrainedConfig.get_config_dict(str(path), **hub)[0])
    except OSError:
        return False


def check_adapter(path: Any, hub: dict[str, Any]) -> None:
    """Refuse an adapter that cannot be merged, before any weight is loaded.

    Raises:
        UserError: peft is not installed.
        ValueError: the checkpoint is an adapter only, without the model that it adapts.
    """
    found = find_adapter(path, hub)
    if found is None:
        return
    if not is_whole(path, hub):
        with open(found, encoding="utf-8") as file:
            base = json.load(file).get("base_model_name_or_path")
        raise ValueError(
            f"{path} is only an adapter of {base}. Merge it with peft (merge_and_unload), save the model with its "
            "tokenizer, and name that folder."
        )
    try:
        import peft  # noqa: F401 - only whether it is there
    except ImportError:
        raise UserError(
            f"{path} holds an adapter (adapter_config.json), and merging it needs peft. Install it with: "
            "pip install 'warmstart[lora]'. To load the weights without the adapter, move adapter_config.json away."
        ) from None


def merge_adapter(model: PreTrainedModel, path: str, hub: dict[str, Any], new: set[str]) -> None:
    """Add the adapter of the checkpoint ``path`` to the weights of ``model``, in place; names and shapes stay.

    Args:
        model: the loaded submodel.
        path: the checkpoint's hub id or folder.
        hub: keyword arguments of a download, such as ``revision``.
        new: names of parameters that the checkpoint does not hold. Cross-attention that is new has no adapter, though
            its matrices may have the names of adapted ones.

    Raises:
        ValueError: the adapter is of another model, or of a type that cannot be merged.
    """
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters(remove_duplicate=False)}
    tied = _is_tied(model)
    with _detached(model, new):
        missing = model.load_adapter(path, adapter_kwargs=hub).missing_keys
        if missing:
            raise ValueError(
                f"The adapter in {path} does not fit this {type(model).__name__}: {len(missing)} of its parameters "
                f"got no value, such as {min(missing)}. Merge it with peft (merge_and_unload) and name the folder of "
                "the result, or move adapter_config.json away."
            )
        unload_adapters(model)
    forget_adapters(model)
    if {name for name, _ in model.named_parameters(remove_duplicate=False)} != trained.keys():
        raise ValueError(f"The adapter in {path} is of a type that cannot be merged into the weights.")
    if tied and not _is_tied(model):
        raise ValueError(
            f"The adapter in {path} replaces the embeddings or the LM head, which are one matrix in this "
            f"{type(model).__name__}. Merge it with peft (merge_and_unload), and name the folder of the result."
        )
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(trained[name])
    _log.info("Merged the adapter of %s into its weights.", path)


@contextmanager
def _detached(model: PreTrainedModel, new: set[str]) -> Iterator[None]:
    """Inside, ``model`` is without the cross-attention whose parameters are all in ``new``."""
    names = {module: name for name, module in model.named_modules()}
    taken = [
        (parent, name, child)
        for parent in names
        for name, child in parent.named_children()
        if ("cross" in name or name.startswith("encoder_attn"))
        and all(f"{names[child]}.{inside}" in new for inside, _ in child.named_parameters())
    ]
    for parent, name, _ in taken:
        setattr(parent, name, nn.Identity())
    try:
        yield
    finally:
        for parent, name, child in taken:
            setattr(parent, name, child)


def _is_tied(model: PreTrainedModel) -> bool:
    embeddings: Any = model.get_input_embeddings()
    output: Any = model.get_output_embeddings()
    return output is not None and output.weight is embeddings.weight


def unload_adapters(module: nn.Module) -> None:
    """Merge every adapter of peft inside ``module`` and put the plain modules back, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, child in list(module.named_children()):
        unload: Any = getattr(child, "unload_and_optionally_merge_module", None)
        if unload is not None:  # of modules that the adapter replaces whole
            setattr(module, name, unload(merge=True, safe_merge=False, adapter_names=None))
        elif isinstance(child, BaseTunerLayer):
            child.merge()
            setattr(module, name, child.get_base_layer())
        else:
            unload_adapters(child)
