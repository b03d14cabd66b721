"""The checkpoint of one submodel: what is refused from its config, and how its weights are loaded."""

from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from warmstart.model.adapters import NO_ADAPTER, find_adapter, hub_arguments, merge_adapter
from warmstart.model.weight_index import check_weight_index

# T5 and its kin make this field of another, so the class has no default for it.
_DERIVED_ACTIVATIONS = {"dense_act_fn": "relu"}


def check_trainable(config: PreTrainedConfig) -> None:
    """Refuse a config whose weights cannot train here, or whose activation transformers does not have.

    Raises:
        ValueError: the weights are quantized, or an activation is unknown, with its name.
    """
    for part in _parts(config):
        quantized = getattr(part, "quantization_config", None) or getattr(part, "compression_config", None)
        if quantized:
            raise ValueError(_refusal_of_quantized(_method(quantized)))
        for name, value in vars(part).items():
            usual = _DERIVED_ACTIVATIONS.get(name, getattr(type(part), name, None))
            if "act" not in name or not isinstance(value, str) or not isinstance(usual, str):
                continue
            # Types have activations of their own, too; where the default is transformers', the value has to be.
            if usual in ACT2FN and value not in ACT2FN:
                raise ValueError(
                    f"{name}={value!r} of this {part.model_type} is not an activation of the installed transformers. "
                    f"Its default is {usual!r}; correct config.json, or upgrade transformers."
                )


def load_pretrained(
    model_class: Any, path: str, *model_args: Any, **kwargs: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a checkpoint, with its adapter merged; also transformers' report on missing and unexpected keys.

    Raises:
        ValueError: the weights are quantized, or the adapter does not fit them.
        UserError: an index names weights outside of the checkpoint's folder.
    """
    hub = hub_arguments(kwargs) | (kwargs.pop("adapter_kwargs", None) or {})
    check_weight_index(path, hub)
    model, info = model_class.from_pretrained(
        path, *model_args, output_loading_info=True, adapter_kwargs=dict(NO_ADAPTER), **kwargs
    )
    # GPTQ and AWQ once had a file of their own for the settings; without them the matrices would be random.
    if any(name.endswith(".qweight") for name in info["unexpected_keys"]):
        raise ValueError(_refusal_of_quantized("GPTQ or AWQ"))
    if find_adapter(path, hub):
        merge_adapter(model, path, hub, set(info["missing_keys"]))
    return model, info


def _refusal_of_quantized(method: str) -> str:
    return (
        f"its weights are quantized ({method}), which can be neither trained nor joined here. Name the checkpoint that "
        "they were made from, or save a dequantized copy and name that."
    )


def _method(quantized: Any) -> str:
    get = quantized.get if isinstance(quantized, dict) else lambda name: getattr(quantized, name, None)
    method = get("quant_method") or ("bitsandbytes" if get("load_in_4bit") or get("load_in_8bit") else "unknown")
    return str(getattr(method, "value", method))


def _parts(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    inside = [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    return [config, *(part for value in inside for part in _parts(value))]
