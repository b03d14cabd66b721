"""What differs from ``PreTrainedModel`` when the checkpoint of a pair is loaded."""

import logging
from typing import Any

from transformers import PreTrainedModel

from warmstart.model.bridge.adapters import NO_ADAPTER, find_adapter, hub_arguments, is_whole
from warmstart.model.weight_index import check_weight_index

_log = logging.getLogger(__name__)


class PairLoading(PreTrainedModel):
    """Loads a pair without adapters that lie in its folder, and initializes each submodel by its own rules."""

    encoder: PreTrainedModel
    decoder: PreTrainedModel

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """transformers' ``from_pretrained``; an adapter next to a whole checkpoint is reported and not loaded."""
        hub = hub_arguments(kwargs)
        check_weight_index(pretrained_model_name_or_path, hub)
        if find_adapter(pretrained_model_name_or_path, hub) and is_whole(pretrained_model_name_or_path, hub):
            _log.warning(
                "%s holds an adapter_config.json next to the checkpoint. The adapter is not loaded; if you want it, "
                "call load_adapter on the model.",
                pretrained_model_name_or_path,
            )
            kwargs["adapter_kwargs"] = dict(NO_ADAPTER)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def initialize_weights(self) -> None:
        """Initialize what no checkpoint holds, buffers included.

        transformers counts this class as custom code and skips each module of it that has no parameters of its own,
        also a FalconH1Model, which fills the buffers of its layers. Submodels are therefore initialized as themselves.
        """
        self.encoder.initialize_weights()
        self.decoder.initialize_weights()
        super().initialize_weights()
