"""Merge the adapter of a checkpoint (``adapter_config.json``) into the weights of a submodel, with peft.

transformers' ``from_pretrained`` would load the adapter as extra modules. Saved parameters would then have names that
no config explains, and parameters missing from the checkpoint would no longer be reported.
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
from warmstart.errors import UserError, install_extra

_log = logging.getLogger(__name__)

# from_pretrained has no option to ignore an adapter, but it finds none in a folder that does not exist.
NO_ADAPTER = {"subfolder": "no_adapter"}
_HUB_ARGUMENTS = ("revision", "cache_dir", "local_files_only", "token", "subfolder")


def hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a ``from_pretrained`` call that locate its files."""
    return {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name) is not None}


def find_adapter(path: Any, hub: dict[str, Any]) -> str | None:
    """Return the path of the ``adapter_config.json`` of a folder or hub id; None without an adapter."""
    return None if path is None else find_adapter_config_file(str(path), **hub)


def skip_adapter(path: Any, hub: dict[str, Any]) -> dict[str, Any]:
    """Return arguments for ``from_pretrained`` that ignore the adapter of a complete checkpoint.

    Logs a warning if there is such an adapter; otherwise the result is empty.
    """
    if not find_adapter(path, hub) or not _has_config(path, hub):
        return {}
    _log.warning(
        "%s holds an adapter_config.json next to the checkpoint. The adapter is not loaded; to load it, call "
        "load_adapter on the model.",
        path,
    )
    return {"adapter_kwargs": dict(NO_ADAPTER)}


def _has_config(path: Any, hub: dict[str, Any]) -> bool:
    try:
        return bool(PreTrainedConfig.get_config_dict(str(path), **hub)[0])
    except OSError:
        return False


def check_adapter(path: Any, hub: dict[str, Any]) -> None:
    """Check that the adapter of a checkpoint can be merged, before any weight is loaded.

    Raises:
        UserError: peft is not installed.
        ValueError: The checkpoint contains only an adapter, without the model that it adapts.
    """
    found = find_adapter(path, hub)
    if found is None:
        return
    if not _has_config(path, hub):
        with open(found, encoding="utf-8") as file:
            base = json.load(file).get("base_model_name_or_path")
        raise ValueError(
            f"{path} is only an adapter of {base}. Merge it with peft (merge_and_unload), save the model with its "
            "tokenizer, and use that folder."
        )
    try:
        import peft  # noqa: F401 - only checks that it is installed
    except ImportError:
        raise UserError(
            f"{path} holds an adapter (adapter_config.json), and merging it needs peft. "
            f"{install_extra('lora')}. To load the weights without the adapter, remove adapter_config.json."
        ) from None


def merge_adapter(model: PreTrainedModel, path: str, hub: dict[str, Any], new: set[str]) -> None:
    """Merge the adapter of the checkpoint ``path`` into the weights of ``model``, in place.

    Parameter names and shapes do not change.

    Args:
        model: The loaded submodel.
        path: The checkpoint's hub id or folder.
        hub: Arguments that locate the files, such as ``revision``.
        new: Names of parameters that the checkpoint does not contain. New cross-attention is not adapted, even if its
            matrices have the names of adapted ones.

    Raises:
        ValueError: The adapter belongs to another model, or its type cannot be merged.
    """
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters(remove_duplicate=False)}
    tied = _is_tied(model)
    with _detached(model, new):
        missing = model.load_adapter(path, adapter_kwargs=hub).missing_keys
        if missing:
            raise ValueError(
                f"The adapter in {path} does not fit this {type(model).__name__}: {len(missing)} of its parameters "
                f"got no value, such as {min(missing)}. Merge it with peft (merge_and_unload) and use the folder of "
                "the result, or remove adapter_config.json."
            )
        unload_adapters(model)
    forget_adapters(model)
    if {name for name, _ in model.named_parameters(remove_duplicate=False)} != trained.keys():
        raise ValueError(
            f"The adapter in {path} has a type that cannot be merged into the weights. Remove adapter_config.json to "
            "load the weights without it."
        )
    if tied and not _is_tied(model):
        raise ValueError(
            f"The adapter in {path} replaces the embeddings or the LM head, which share one matrix in this "
            f"{type(model).__name__}. Merge it with peft (merge_and_unload) and use the folder of the result."
        )
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(trained[name])
    _log.info("Merged the adapter in %s into the weights.", path)


@contextmanager
def _detached(model: PreTrainedModel, new: set[str]) -> Iterator[None]:
    """Remove the cross-attention modules whose parameters are all in ``new`` from ``model`` within the context."""
    names = {module: name for name, module in model.named_modules()}
    removed = [
        (parent, name, child)
        for parent in names
        for name, child in parent.named_children()
        if ("cross" in name or name.startswith("encoder_attn"))
        and all(f"{names[child]}.{inside}" in new for inside, _ in child.named_parameters())
    ]
    for parent, name, _ in removed:
        setattr(parent, name, nn.Identity())
    try:
        yield
    finally:
        for parent, name, child in removed:
            setattr(parent, name, child)


def _is_tied(model: PreTrainedModel) -> bool:
    embeddings: Any = model.get_input_embeddings()
    output: Any = model.get_output_embeddings()
    return output is not None and output.weight is embeddings.weight


def unload_adapters(module: nn.Module) -> None:
    """Merge every peft adapter inside ``module`` and restore the plain modules, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, child in list(module.named_children()):
        unload: Any = getattr(child, "unload_and_optionally_merge_module", None)
        if unload is not None:  # the adapter replaces the whole module (modules_to_save)
            setattr(module, name, unload(merge=True, safe_merge=False, adapter_names=None))
        elif isinstance(child, BaseTunerLayer):
            child.merge()
            setattr(module, name, child.get_base_layer())
        else:
            unload_adapters(child)
