"""Programs of ``torch.export`` generate the ids that the model does, for any batch and any lengths."""

import inspect

import pytest
import torch
from small_pairs import BATCHES, greedy, ours, pair

from warmstart.convert import to_torch_export
from warmstart.convert.graphs import graphs_of
from warmstart.errors import UserError


@pytest.mark.parametrize("decoder", ["gpt2", "llama"], ids=["native", "grafted"])
def test_programs_generate_the_models_ids(decoder, tmp_path):
    model = pair(decoder)
    shapes = to_torch_export.write(model, tmp_path)
    encode, step = (torch.export.load(tmp_path / f"{name}.pt2").module() for name in ("encode", "step"))
    found = [greedy(encode, step, shapes, batch) for batch in BATCHES]
    assert found == [ours(model, batch) for batch in BATCHES]
    assert len({token for rows in found for row in rows for token in row}) > 5  # the models write different tokens


def test_a_decoder_whose_steps_compute_other_logits_is_refused():
    model = pair("gpt2")
    plain = model.decoder.forward

    def shifted(*args, input_ids, **kwargs):
        decoded = plain(*args, input_ids=input_ids, **kwargs)
        decoded.logits = decoded.logits + input_ids.shape[1]
        return decoded

    shifted.__signature__ = inspect.signature(plain)
    model.decoder.forward = shifted
    with pytest.raises(UserError, match="other logits than the model"):
        graphs_of(model)


def test_a_decoder_without_keys_and_values_is_refused():
    with pytest.raises(UserError, match=r"A mamba decoder cannot be recorded.*format=safetensors"):
        graphs_of(pair("mamba"))
