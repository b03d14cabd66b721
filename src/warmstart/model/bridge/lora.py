"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on encoder and decoder layers, with peft.

    add_lora(model, {"halves": "decoder", "rank": 16, "alpha": 32})     # before training
    merge_lora(model)                                                   # before export: plain weights

The adapters are new parameters of the joint model and use the learning rate of new parameters. ``add_lora`` does not
freeze the submodel; the caller does. The joint config records the adapters, so checkpoints with adapters load here, but
not in transformers' own class.
"""

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from warmstart.errors import UserError, install_extra
from warmstart.model.adapters import unload_adapters
from warmstart.model.bridge.grafting import outermost_lists
from warmstart.model.decoders import cross_attention_modules

SUBMODELS_OF = {"none": (), "encoder": ("encoder",), "decoder": ("decoder",), "both": ("encoder", "decoder")}


def add_lora(model: Any, settings: dict[str, Any]) -> None:
    """Add an adapter to every matrix in the layers of the chosen submodels, in place.

    The model's output does not change. Cross-attention (new, fully trained), embeddings, the LM head, and experts and
    their routers, which peft cannot adapt, get no adapter.

    Args:
        model: The joint model.
        settings: ``halves`` (``none``, ``encoder``, ``decoder`` or ``both``), ``rank`` and ``alpha``.

    Raises:
        UserError: peft is not installed, the submodels share their weights, or one has no matrix to adapt.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError(f"bridge.lora needs peft, which is not installed. {install_extra('lora')}.") from None
    if model.config.tie_encoder_decoder:
        raise UserError(
            "bridge.lora cannot be combined with bridge.share=weights: an adapter of one submodel would change both. "
            "Choose one of the two."
        )
    for name in SUBMODELS_OF[settings["halves"]]:
        submodel = getattr(model, name)
        targets = _matrices_of_layers(submodel)
        if not targets:
            raise UserError(
                f"bridge.lora={settings['halves']}: the {name} ({type(submodel).__name__}) has no linear layers to "
                "adapt. Set bridge.lora to another value."
            )
        trained = {id(parameter) for parameter in submodel.parameters() if parameter.requires_grad}
        config = LoraConfig(r=settings["rank"], lora_alpha=settings["alpha"], target_modules=targets)
        inject_adapter_in_model(config, submodel)
        for parameter_name, parameter in submodel.named_parameters():  # peft has frozen all other parameters
            parameter.requires_grad_(id(parameter) in trained or is_lora(parameter_name))
    model.config.lora = dict(settings)


def merge_lora(model: Any) -> None:
    """Merge the adapters into the weights, in place, which restores the pretrained names and shapes."""
    if model.config.lora is None:
        return
    unload_adapters(model)
    model.config.lora = None


def is_lora(parameter_name: str) -> bool:
    """Return whether a parameter of this name belongs to an adapter."""
    return ".lora_" in parameter_name


def _matrices_of_layers(submodel: nn.Module) -> list[str]:
    names = {module: name for name, module in submodel.named_modules()}
    cross_attention = tuple(f"{name}." for name in cross_attention_modules(submodel))
    found = []
    for layers in outermost_lists(submodel):
        for layer in layers.modules():
            # A router may be a linear layer that returns more than a product (Llama 4).
            if isinstance(layer, (nn.Linear, Conv1D)) and "Router" not in type(layer).__name__:
                found.append(names[layer])
    return [name for name in found if not name.startswith(cross_attention)]


def name_without_lora(name: str) -> str:
    """Return a parameter's name before adapters were added; peft moves an adapted matrix to ``base_layer``."""
    return name.replace(".base_layer.", ".")
