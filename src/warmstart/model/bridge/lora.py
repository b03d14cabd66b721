"""Low-rank adapters on the layers of either half, by peft (Hu et al. 2021, arXiv 2106.09685).

    add_lora(model, {"halves": "decoder", "rank": 16, "alpha": 32})     # before training
    merge_lora(model)                                                   # before export: plain weights again

The adapters are new parameters of the joint model and train at the new parts' rate; whoever adds them freezes the half
below. Its config records them, so a checkpoint with adapters is rebuilt; transformers' own class cannot hold them.
"""

from typing import Any

from torch import nn

from warmstart.errors import UserError
from warmstart.model.adapters import unload_adapters
from warmstart.model.bridge.grafting import outermost_lists
from warmstart.model.decoders import cross_attention_modules

HALVES = {"none": (), "encoder": ("encoder",), "decoder": ("decoder",), "both": ("encoder", "decoder")}


def add_lora(model: Any, settings: dict[str, Any]) -> None:
    """Put an adapter beside every matrix of the chosen halves' layers, in place; the model's output stays the same.

    Cross-attention, embeddings and the output matrix have none: the first is new and trains whole.

    Raises:
        UserError: peft is not installed, the halves share their weights, or a half has no matrix to adapt.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("bridge.lora needs peft. Install it with: pip install 'warmstart[lora]'") from None
    if model.config.tie_encoder_decoder:
        raise UserError("bridge.lora and bridge.share=weights contradict: adapters of one half would move both.")
    for name in HALVES[settings["halves"]]:
        half = getattr(model, name)
        targets = _matrices_of_layers(half)
        if not targets:
            raise UserError(f"bridge.lora: the {name} ({type(half).__name__}) has no linear layers to adapt.")
        trained = {id(parameter) for parameter in half.parameters() if parameter.requires_grad}
        config = LoraConfig(r=settings["rank"], lora_alpha=settings["alpha"], target_modules=targets)
        inject_adapter_in_model(config, half)
        for parameter_name, parameter in half.named_parameters():  # peft has frozen all but its own
            parameter.requires_grad_(id(parameter) in trained or is_lora(parameter_name))
    model.config.lora = dict(settings)


def merge_lora(model: Any) -> None:
    """Add each adapter to the matrix beside it and remove it, in place: names and shapes as they were pretrained."""
    if model.config.lora is None:
        return
    unload_adapters(model)
    model.config.lora = None


def is_lora(parameter_name: str) -> bool:
    """Whether a parameter's name is an adapter's."""
    return ".lora_" in parameter_name


def _matrices_of_layers(half: nn.Module) -> list[str]:
    names = {module: name for name, module in half.named_modules()}
    across = tuple(f"{name}." for name in cross_attention_modules(half))
    found = []
    for layers in outermost_lists(half):
        for layer in layers.modules():
            weight = getattr(layer, "weight", None)
            # Linear, and GPT-2's Conv1D, which is none; norms and convolutions have other shapes.
            if isinstance(weight, nn.Parameter) and weight.dim() == 2 and not isinstance(layer, nn.Embedding):
                found.append(names[layer])
    return [name for name in found if not name.startswith(across)]


def name_without_lora(name: str) -> str:
    """Return a parameter's name before adapters were added: peft keeps an adapted matrix one name further down."""
    return name.replace(".base_layer.", ".")
