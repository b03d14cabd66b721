"""Score the sentences of a source: a linear classifier, or one after inter-sentence layers (Liu & Lapata 2019).

The selector takes the place of a decoder (``decoder=ext``, ``decoder=transformer_ext``). Its layers are those of the
published code: no normalization before the first attention, and before each later block.

Shapes: B batch, N sentences, H hidden size.
"""

import math
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from warmstart.config.model import SELECTOR


@strict
class SelectorConfig(PreTrainedConfig):
    """Configuration of ``SentenceSelector``.

    Args:
        hidden_size: Size of the sentence states; if it is not that of the encoder, a projection is added.
        inter_sentence_layers: Number of layers before the classifier of sentence states.
        num_attention_heads: Attention heads of a layer.
        intermediate_size: Size of a layer's feed-forward block.
        dropout: Dropout probability in the layers.
        sentences: Largest number of sentences in a summary.
        vocab_size: Number of tokens of the encoder's tokenizer, with which summaries are written.
    """

    model_type = SELECTOR

    hidden_size: int = 768
    inter_sentence_layers: int = 0
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    dropout: float = 0.1
    sentences: int = 3
    vocab_size: int = 30522
    initializer_range: float = 0.02
    is_decoder: bool = True
    add_cross_attention: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


class _Layer(nn.Module):
    """An inter-sentence layer; the first one has no normalization before its attention."""

    def __init__(self, config: SelectorConfig, *, is_first: bool) -> None:
        super().__init__()
        size = config.hidden_size
        self.norm = nn.Identity() if is_first else nn.LayerNorm(size, eps=1e-6)
        self.attention = nn.MultiheadAttention(size, config.num_attention_heads, config.dropout, batch_first=True)
        self.ffn_norm = nn.LayerNorm(size, eps=1e-6)
        self.up, self.down = nn.Linear(size, config.intermediate_size), nn.Linear(config.intermediate_size, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states_BNH: Tensor, absent_BN: Tensor) -> Tensor:
        normed_BNH = self.norm(states_BNH)
        attended_BNH, _ = self.attention(
            normed_BNH, normed_BNH, normed_BNH, key_padding_mask=absent_BN, need_weights=False
        )
        states_BNH = states_BNH + self.dropout(attended_BNH)
        inner_BNF = self.dropout(nn.functional.gelu(self.up(self.ffn_norm(states_BNH))))
        new_BNH: Tensor = states_BNH + self.dropout(self.down(inner_BNF))
        return new_BNH


class SentenceSelector(PreTrainedModel):
    """Scores sentences from their states."""

    config_class = SelectorConfig
    base_model_prefix = "selector"

    def __init__(self, config: SelectorConfig) -> None:
        super().__init__(config)
        count = config.inter_sentence_layers
        self.layers = nn.ModuleList(_Layer(config, is_first=i == 0) for i in range(count))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6) if count else nn.Identity()
        self.score = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.MultiheadAttention):
            nn.init.xavier_uniform_(module.in_proj_weight)
            nn.init.zeros_(module.in_proj_bias)

    def forward(self, encoder_hidden_states: Tensor, encoder_attention_mask: Tensor) -> Tensor:
        """Return the score of each sentence (B, N), a logit.

        Args:
            encoder_hidden_states: (B, N, H) states of the sentences.
            encoder_attention_mask: (B, N), 0 where a source has no sentence.
        """
        present_BN = encoder_attention_mask != 0
        states_BNH = encoder_hidden_states
        if len(self.layers):
            absent_BN = ~present_BN
            absent_BN[:, 0] = False  # attention over no sentence would be NaN
            numbers_NH = sinusoidal_positions(*states_BNH.shape[1:]).to(states_BNH)
            states_BNH = states_BNH * present_BN[..., None] + numbers_NH
            for layer in self.layers:
                states_BNH = layer(states_BNH, absent_BN)
        scores_BN: Tensor = self.score(self.norm(states_BNH)).squeeze(-1)
        return scores_BN

    def get_input_embeddings(self) -> Any:
        """Return None: a selector has no embeddings."""
        return None

    def get_output_embeddings(self) -> Any:
        """Return None: a selector has no LM head."""
        return None


def sinusoidal_positions(count: int, size: int) -> Tensor:
    """Return the position embeddings (count, size) of Vaswani et al. (2017), sine and cosine in turn."""
    places = torch.arange(count)[:, None]
    rates = torch.exp(torch.arange(0, size, 2) * -(math.log(10000.0) / size))
    table = torch.zeros(count, size)
    table[:, 0::2], table[:, 1::2] = torch.sin(places * rates), torch.cos(places * rates)[:, : size // 2]
    return table


AutoConfig.register(SELECTOR, SelectorConfig, exist_ok=True)
AutoModelForCausalLM.register(SelectorConfig, SentenceSelector, exist_ok=True)
