"""More positions for an encoder: the first are those of the checkpoint, the others repeat its last or are random."""

import copy

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from warmstart.config.model import NewPositions, SubmodelSettings
from warmstart.errors import UserError
from warmstart.model.positions import lengthen, lengthen_config

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "pad_token_id": 1,
}


def wanted(positions, new=NewPositions.last):
    return SubmodelSettings(name="one", path="", model_type="bert", positions=positions, new_positions=new)


@pytest.mark.parametrize("new", NewPositions)
@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (BertModel(BertConfig(**SIZES, max_position_embeddings=6), add_pooling_layer=False), 10),
        (RobertaModel(RobertaConfig(**SIZES, max_position_embeddings=8), add_pooling_layer=False), 12),
    ],
    ids=["bert", "roberta"],
)
def test_new_positions_follow_those_of_the_checkpoint(model, rows, new):
    model = type(model)(copy.deepcopy(model.config), add_pooling_layer=False).eval()
    before = model.embeddings.position_embeddings.weight.clone()
    short = model(torch.full((1, 6), 5)).last_hidden_state
    lengthen(model, wanted(10, new))
    table = model.embeddings.position_embeddings.weight
    assert len(table) == rows == model.config.max_position_embeddings
    assert torch.equal(table[: len(before)], before)
    repeats = torch.equal(table[len(before) :], before[-1].expand(rows - len(before), -1))
    assert repeats is (new is NewPositions.last)
    assert table[len(before) :].std() > 0
    assert torch.equal(model(torch.full((1, 6), 5)).last_hidden_state, short)
    assert model(torch.full((1, 10), 5)).last_hidden_state.isfinite().all()


def test_impossible_positions_are_refused():
    config = BertConfig(**SIZES, max_position_embeddings=512)
    for positions, role, message in ((100, "encoder", "has 512 positions"), (600, "decoder", "encoder.positions only")):
        with pytest.raises(UserError, match=message):
            lengthen_config(config, wanted(positions), role)
    with pytest.raises(UserError, match="no learned position embeddings"):
        lengthen(torch.nn.Linear(2, 2), wanted(600))
