"""The place of an encoder in a model without one (``encoder=none``).

Its type is registered with transformers' auto classes, so configs and checkpoints are built and read like any other.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from warmstart.config.model import NO_ENCODER


@strict
class NoEncoderConfig(PreTrainedConfig):
    """The place of an encoder's configuration: the sizes of the decoder, and no layers.

    Args:
        vocab_size: Number of entries of the decoder's vocabulary, in which sources are written, too.
        hidden_size: The decoder's hidden size.
        max_position_embeddings: The decoder's number of positions; None if it has no limit.
    """

    model_type = NO_ENCODER

    vocab_size: int = 1
    hidden_size: int = 1
    num_hidden_layers: int = 0
    num_attention_heads: int = 1
    max_position_embeddings: int | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False


class NoEncoder(PreTrainedModel):
    """The place of an encoder, without parameters. It is never called."""

    config_class = NoEncoderConfig
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True

    def __init__(self, config: NoEncoderConfig) -> None:
        super().__init__(config)
        self.post_init()

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest dtype, so that the joint model has the decoder's; there is no parameter that has one."""
        return torch.bool

    def get_output_embeddings(self) -> None:
        """Return None: there is no LM head."""
        return

    def forward(self, input_ids: Tensor | None = None, **kwargs: Any) -> Any:
        """Raise an error.

        Raises:
            ValueError: Always.
        """
        raise ValueError("This model has no encoder: its decoder reads the source. Call the joint model.")


AutoConfig.register(NO_ENCODER, NoEncoderConfig, exist_ok=True)
AutoModel.register(NoEncoderConfig, NoEncoder, exist_ok=True)
