"""What a researcher chooses about the model: two halves and the bridge between them (conf/encoder, decoder, bridge).

Plain dataclasses without torch, so that composing and checking a config is instant.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Weights(StrEnum):
    pretrained = "pretrained"
    random = "random"


class Scale(StrEnum):
    full = "full"
    tiny = "tiny"


class Share(StrEnum):
    none = "none"
    embeddings = "embeddings"
    weights = "weights"


class Attention(StrEnum):
    own = "own"
    bidirectional = "bidirectional"


class Halves(StrEnum):
    none = "none"
    encoder = "encoder"
    decoder = "decoder"
    both = "both"


class CrossAttentionInit(StrEnum):
    random = "random"
    copy = "copy"


class Gate(StrEnum):
    zero = "zero"
    none = "none"


@dataclass
class HalfSettings:
    """One pretrained half: where its weights and tokenizer come from."""

    name: str = "???"
    """Short name of the choice, as on the command line; stands in tables and run names."""
    path: str = "???"
    """Hub id, local folder, or ``package_file:DISTRIBUTION/PATH`` for a folder inside an installed package."""
    model_type: str = "???"
    """transformers' model type; with ``architecture`` it says what ``weights=random`` builds without a hub."""
    revision: str = "main"
    """Branch, tag or commit of the hub id; pin a commit for a paper."""
    weights: Weights = Weights.pretrained
    """``pretrained``, or ``random`` for the same architecture untrained (the RND rows of Rothe et al. 2020)."""
    scale: Scale = Scale.full
    """``full``, or ``tiny`` for a two-layer model of the same type (needs ``weights=random``)."""
    attention: Attention = Attention.own
    """``own`` as it was pretrained; ``bidirectional`` lets a decoder-only model that encodes see both ways."""
    tokenizer: str | None = None
    """Where the tokenizer comes from, if not from ``path``."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """What differs from the model type's default configuration (widths, depth, vocabulary)."""


@dataclass
class BridgeSettings:
    """How the halves are joined."""

    share: Share = Share.none
    """``weights`` shares encoder and decoder layer by layer (BERTSHARE), ``embeddings`` the token embeddings alone."""
    freeze: Halves = Halves.none
    """Which pretrained half does not train; new cross-attention always trains."""
    lora: Halves = Halves.none
    """Which half trains low-rank adapters instead of its own weights; they are merged on export."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: int = 32
    """Adapters are scaled by this over their rank."""
    warmup_steps: int = 0
    """Optimizer steps for which the new parts train alone, before the halves join in."""
    init: CrossAttentionInit = CrossAttentionInit.copy
    """New cross-attention begins as a ``copy`` of the same layer's self-attention, or ``random``."""
    every_n_layers: int = 1
    """Cross-attention follows every n-th layer of a decoder that has none of its own."""
    gate: Gate = Gate.zero
    """``zero`` lets such a decoder begin as the bare language model, ``none`` reads the source from the first step."""
    bias: bool = False
    """Whether the projections of grafted cross-attention have biases."""
    dropout: float | None = None
    """Dropout probability of both halves; null keeps what each checkpoint says."""


def fault_of_sharing(encoder: HalfSettings, decoder: HalfSettings, bridge: BridgeSettings) -> str | None:
    """What forbids that the halves share what ``bridge`` says; None where nothing does."""
    if bridge.share is Share.none:
        return None
    checkpoints = [
        half.path if half.revision == "main" else f"{half.path}@{half.revision}"
        for half in (encoder, decoder)
        if half.weights is Weights.pretrained
    ]
    if len(set(checkpoints)) > 1:
        return (
            f"bridge.share={bridge.share.value} cannot be had of two checkpoints, {' and '.join(checkpoints)}: what is "
            "shared holds the values of one. Name the same path and revision for both halves, or set "
            "encoder.weights=random or decoder.weights=random."
        )
    options = {"freeze": bridge.freeze, "lora": bridge.lora}
    held = [halves for halves in (Halves.encoder, Halves.decoder) if {halves, Halves.both} & set(options.values())]
    if bridge.share is Share.embeddings and len(held) == 1:
        asked = " and ".join(f"bridge.{name}={held[0].value}" for name in options if options[name] is held[0])
        return (
            f"bridge.share=embeddings and {asked} contradict: one half's embeddings stand still and the other's train, "
            "but they are one. Choose one, or let neither half train its own weights."
        )
    return None
