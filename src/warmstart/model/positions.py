"""More positions for an encoder with learned position embeddings, which its checkpoint has up to 512.

Liu & Lapata (2019) add position embeddings for longer sources: random ones in their paper, the last one again in their
code.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from warmstart.config.model import NewPositions, SubmodelSettings
from warmstart.errors import UserError
from warmstart.model.padding import POSITIONS_AFTER_PAD


def rows_for(config: PreTrainedConfig, positions: int) -> int:
    """Return the number of position embeddings for a number of positions; RoBERTa's first ones are not used."""
    return positions + ((config.pad_token_id or 0) + 1 if config.model_type in POSITIONS_AFTER_PAD else 0)


def lengthen_config(config: PreTrainedConfig, settings: SubmodelSettings, role: str) -> None:
    """Set the number of positions in a config to ``settings.positions``, in place; null changes nothing.

    Raises:
        UserError: The model has no limit, or more positions already.
    """
    if settings.positions is None:
        return
    known, wanted = getattr(config, "max_position_embeddings", None), rows_for(config, settings.positions)
    if role != "encoder":
        raise UserError(f"{role}.positions={settings.positions} is not possible. Set encoder.positions only.")
    if not isinstance(known, int) or known > wanted:
        raise UserError(
            f"encoder.positions={settings.positions}, but encoder={settings.name} has {known or 'no limit of'} "
            "positions. Set encoder.positions=null."
        )
    config.max_position_embeddings = wanted


@torch.no_grad()
def lengthen(encoder: Any, settings: SubmodelSettings) -> None:
    """Add position embeddings to a loaded encoder, in place, up to ``settings.positions``; null changes nothing.

    Raises:
        UserError: The encoder has no learned position embeddings.
    """
    if settings.positions is None:
        return
    found = [module for name, module in encoder.named_modules() if name.endswith("embeddings.position_embeddings")]
    if len(found) != 1 or not isinstance(found[0], nn.Embedding):
        raise UserError(
            f"encoder.positions={settings.positions}: encoder={settings.name} has no learned position embeddings that "
            "could be extended. Set encoder.positions=null."
        )
    (table,) = found
    holder = encoder.get_submodule("embeddings")
    before, wanted = table.num_embeddings, rows_for(encoder.config, settings.positions)
    weight = table.weight.new_empty(wanted, table.embedding_dim)
    weight[:before] = table.weight
    if settings.new_positions is NewPositions.last:
        weight[before:] = table.weight[-1]
    else:
        weight[before:].normal_(std=getattr(encoder.config, "initializer_range", 0.02))
    table.weight, table.num_embeddings = nn.Parameter(weight), wanted
    encoder.config.max_position_embeddings = wanted
    for name, value in list(holder.named_buffers(recurse=False)):  # numbers and segments of all positions
        if value.shape == (1, before):
            numbers, zeros = torch.arange(wanted)[None], torch.zeros(1, wanted)
            longer = (numbers if name == "position_ids" else zeros).to(value)
            holder.register_buffer(name, longer, persistent=name in holder.state_dict())
