"""Which parameters of a joint model no checkpoint gave: they train at a rate of their own, and are counted apart."""

from typing import Any

from warmstart.model.bridge.lora import is_lora
from warmstart.model.bridge.tying import shared_across_halves
from warmstart.model.decoders import cross_attention_modules

BRIDGE = ("enc_to_dec_proj.", "cross_attention.")


class NewParameters:
    """What a joint model knows of where its values came from."""

    decoder: Any
    named_parameters: Any
    _new_parameters: set[str] | None = None
    """Every name under which no checkpoint gave a value; None where that was never said."""

    def new_parameter_names(self) -> set[str]:
        """Parameters that no pretrained checkpoint gave: cross-attention, projection, adapters, a fresh head or half.

        What the halves share is new where neither's checkpoint gave it. For a model that did not come from
        :meth:`from_encoder_decoder_pretrained` these are the bridge alone.
        """
        trainable = dict(self.named_parameters())
        adapters = {name for name in trainable if is_lora(name)}
        if self._new_parameters is None:
            bridge = (*(f"decoder.{name}." for name in cross_attention_modules(self.decoder)), *BRIDGE)
            return {name for name in trainable if name.startswith(bridge)} | adapters
        model: Any = self
        shared = shared_across_halves(model)
        new = set()
        for name in trainable:
            given = _name_without_lora(name)
            if {given, shared.get(given, given)} <= self._new_parameters:
                new.add(name)
        return new | adapters

    def mark_new(self, prefix: str) -> None:
        """Count every parameter under ``prefix`` as given by no checkpoint: a half that was built untrained."""
        names = [name for name, _ in self.named_parameters(remove_duplicate=False) if name.startswith(prefix)]
        known = self.new_parameter_names() if self._new_parameters is None else self._new_parameters
        self._new_parameters = known | {_name_without_lora(name) for name in names}


def _name_without_lora(name: str) -> str:
    """A parameter's name before adapters: peft keeps an adapted matrix one name further down."""
    return name.replace(".base_layer.", ".")
