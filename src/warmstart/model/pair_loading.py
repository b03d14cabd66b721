"""What differs from ``PreTrainedModel`` when the checkpoint of a pair is loaded."""

from transformers import PreTrainedModel


class PairLoading(PreTrainedModel):
    """Initializes each submodel by its own rules."""

    encoder: PreTrainedModel
    decoder: PreTrainedModel

    def initialize_weights(self) -> None:
        """Initialize what no checkpoint holds, buffers included.

        transformers counts this class as custom code and skips each module of it that has no parameters of its own,
        also a FalconH1Model, which fills the buffers of its layers. Submodels are therefore initialized as themselves.
        """
        self.encoder.initialize_weights()
        self.decoder.initialize_weights()
        super().initialize_weights()
