"""Options of the model: conf/encoder, conf/decoder, and conf/bridge, which joins the two.

This module does not import torch, so that composing a config and checking it is fast.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from warmstart.config.option import option

SELECTOR = "sentence-selector"  # the model type of decoders that select sentences of the source
AUTO_TYPE = "auto"  # the model type that the checkpoint's config.json names
PACKAGE_FILE = "package_file:"  # begins a path in an installed package: package_file:DISTRIBUTION/PATH
NO_ENCODER = "none"  # the model type of encoder=none: the decoder reads the source


class Weights(StrEnum):
    """Where the weights of a submodel come from."""

    pretrained = "pretrained"
    random = "random"


class Scale(StrEnum):
    """Size of a submodel with random weights."""

    full = "full"
    tiny = "tiny"


class Share(StrEnum):
    """What encoder and decoder share."""

    none = "none"
    embeddings = "embeddings"
    weights = "weights"


class Attention(StrEnum):
    """Which positions the self-attention of a submodel sees."""

    own = "own"
    bidirectional = "bidirectional"


class WhichSubmodels(StrEnum):
    """Which submodels a choice applies to."""

    none = "none"
    encoder = "encoder"
    decoder = "decoder"
    both = "both"


class CrossAttentionInit(StrEnum):
    """How new cross-attention is initialized."""

    random = "random"
    copy = "copy"


class NewPositions(StrEnum):
    """What additional position embeddings start from."""

    last = "last"
    random = "random"


class Embeddings(StrEnum):
    """What the decoder's token embeddings start from."""

    own = "own"
    copy = "copy"


class Gate(StrEnum):
    """Whether the output of grafted cross-attention is multiplied by a gate that starts at zero."""

    zero = "zero"
    none = "none"


@dataclass
class SubmodelSettings:
    """The encoder or the decoder: where its weights and its tokenizer come from."""

    name: str = option(
        "???",
        changes_result=False,
        doc="Short name of the model, as on the command line. It appears in tables and in names of runs.",
    )
    path: str = option(
        "???",
        doc="Where the weights are: a hub id, a local folder, or `package_file:DISTRIBUTION/PATH` for a folder in an "
        "installed package.",
    )
    model_type: str = option(
        "???",
        doc="Model type as transformers names it, such as bert. With `architecture`, it defines the model that "
        "`weights=random` builds without the hub. `auto` reads the type, and what `architecture` does not set, from "
        "the `config.json` at `path`.",
    )
    revision: str = option(
        "main",
        doc="Branch, tag or commit of the hub id. Set a commit if others should be able to reproduce the results.",
    )
    weights: Weights = option(
        Weights.pretrained,
        doc="Where the weights come from. `pretrained` loads the checkpoint. `random` builds the same architecture "
        "untrained, as in the RND rows of Rothe et al. (2020).",
    )
    scale: Scale = option(
        Scale.full,
        doc="Size of the model. `tiny` is a two-layer model of the same type, for tests; it needs `weights=random`.",
    )
    attention: Attention = option(
        Attention.own,
        doc="Attention of the encoder. `own` keeps the attention that the model was pretrained with; `bidirectional` "
        "lets a causal language model that is used as encoder attend in both directions.",
    )
    tokenizer: str | None = option(
        None,
        doc="Hub id or folder of the tokenizer. null takes the tokenizer from `path`; of another hub id, the branch "
        "main is read. `scale=tiny` trains a small tokenizer on the training texts, unless this is a folder, and so "
        "does `weights=random` without access to the hub.",
    )
    architecture: dict[str, Any] = option(
        default_factory=dict,
        doc="Settings in which the model differs from the default configuration of its model type, such as hidden "
        "size, number of layers and vocabulary size. `weights=random` and `task=check` build the model from them. "
        "Pretrained weights are loaded with the checkpoint's own `config.json` instead.",
    )
    positions: int | None = option(
        None,
        at_least=1,
        doc="Number of positions of the encoder, if it should read longer sources than its checkpoint. It needs "
        "learned position embeddings. null keeps those of the checkpoint.",
    )
    new_positions: NewPositions = option(
        NewPositions.last,
        doc="What the additional position embeddings of `positions` start from. `last` repeats the last one of the "
        "checkpoint, as the code of BertSum does; `random` draws them, as its paper says.",
    )


@dataclass
class BridgeSettings:
    """How encoder and decoder are joined."""

    share: Share = option(
        Share.none,
        doc="What encoder and decoder share. `weights` shares their weights layer by layer (BERTSHARE, Rothe et al. "
        "2020); `embeddings` shares only the token embeddings.",
    )
    freeze: WhichSubmodels = option(
        WhichSubmodels.none,
        doc="Which pretrained submodel is frozen. New cross-attention always trains.",
    )
    lora: WhichSubmodels = option(
        WhichSubmodels.none,
        doc="Which submodel trains low-rank adapters (LoRA) in place of its own weights, with the learning rate "
        "`optim.new_rate`. An export merges them into the weights. It needs the extra `lora`.",
    )
    lora_rank: int = option(16, at_least=1, doc="Rank of the LoRA adapters. A higher rank trains more parameters.")
    lora_alpha: int = option(
        32,
        at_least=1,
        doc="Scale of the LoRA adapters: their output is multiplied by `lora_alpha` / `lora_rank`.",
    )
    warmup_steps: int = option(
        0,
        at_least=0,
        doc="Optimizer steps during which only new parameters train, before the pretrained ones are unfrozen. These "
        "then have a learning-rate warm-up of their own.",
    )
    init: CrossAttentionInit = option(
        CrossAttentionInit.copy,
        doc="How the weights of new cross-attention are initialized. `copy` copies the self-attention of the same "
        "layer; `random` draws random weights.",
    )
    embeddings: Embeddings = option(
        Embeddings.own,
        doc="What the decoder's token embeddings start from. `copy` copies those of the encoder into an untrained "
        "decoder, as BertSum does; the decoder then writes with the encoder's tokenizer.",
    )
    every_n_layers: int = option(
        1,
        at_least=1,
        doc="Distance in layers between grafted cross-attention layers, in a decoder that has no cross-attention of "
        "its own. 1 adds one after every layer; a larger number adds fewer parameters.",
    )
    gate: Gate = option(
        Gate.zero,
        doc="Gate of grafted cross-attention: a trained number that its output is multiplied by. `zero` starts at "
        "zero, so that training begins with the unchanged language model. `none` has no gate, and the source is used "
        "from the first step.",
    )
    bias: bool = option(False, doc="Whether the projections of grafted cross-attention have biases.")
    dropout: float | None = option(
        None,
        at_least=0,
        below=1,
        doc="Dropout probability in encoder, decoder and grafted cross-attention. null keeps the probability of each "
        "checkpoint; grafted cross-attention then has none.",
    )


def reader_of(encoder: SubmodelSettings, decoder: SubmodelSettings) -> SubmodelSettings:
    """Return the submodel whose tokenizer reads the source: the decoder if there is no encoder."""
    return decoder if encoder.model_type == NO_ENCODER else encoder


def fault_of_no_encoder(encoder: SubmodelSettings, bridge: BridgeSettings) -> str | None:
    """Return the message if ``encoder=none`` is set together with an option that needs an encoder, else None."""
    if encoder.model_type != NO_ENCODER:
        return None
    contradicting = {
        f"bridge.share={bridge.share.value}": bridge.share is not Share.none,
        f"bridge.freeze={bridge.freeze.value}": bridge.freeze is not WhichSubmodels.none,
        f"bridge.lora={bridge.lora.value}": bridge.lora in (WhichSubmodels.encoder, WhichSubmodels.both),
        f"bridge.warmup_steps={bridge.warmup_steps}": bridge.warmup_steps > 0,
        f"bridge.embeddings={bridge.embeddings.value}": bridge.embeddings is not Embeddings.own,
        f"encoder.attention={encoder.attention.value}": encoder.attention is not Attention.own,
    }
    if found := [name for name, contradicts in contradicting.items() if contradicts]:
        return (
            f"encoder=none and {' and '.join(found)} contradict each other: there is neither an encoder nor "
            f"cross-attention. Remove {'it' if len(found) == 1 else 'them'}, or choose an encoder."
        )
    return None


def fault_of_sharing(encoder: SubmodelSettings, decoder: SubmodelSettings, bridge: BridgeSettings) -> str | None:
    """Return the message if encoder and decoder cannot share what ``bridge.share`` requests, else None."""
    if bridge.share is Share.none:
        return None
    checkpoints = [
        submodel.path if submodel.revision == "main" else f"{submodel.path}@{submodel.revision}"
        for submodel in (encoder, decoder)
        if submodel.weights is Weights.pretrained
    ]
    if len(set(checkpoints)) > 1:
        return (
            f"bridge.share={bridge.share.value} is impossible with two checkpoints, {' and '.join(checkpoints)}: "
            "shared parameters can hold the values of only one. Set the same path and revision for encoder and "
            "decoder, or set encoder.weights=random or decoder.weights=random."
        )
    options = {"freeze": bridge.freeze, "lora": bridge.lora}
    submodels = (WhichSubmodels.encoder, WhichSubmodels.decoder)
    frozen = [one for one in submodels if {one, WhichSubmodels.both} & set(options.values())]
    if bridge.share is Share.embeddings and len(frozen) == 1:
        chosen = " and ".join(f"bridge.{name}={frozen[0].value}" for name in options if options[name] is frozen[0])
        return (
            f"bridge.share=embeddings and {chosen} contradict each other: the shared embeddings cannot be frozen in "
            "one submodel and train in the other. Remove one of these settings, or apply bridge.freeze or bridge.lora "
            "to both submodels."
        )
    return None
