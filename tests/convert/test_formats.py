"""Conversions that would change what the model writes are refused."""

from types import SimpleNamespace

import pytest
from small_pairs import pair

from warmstart.config.evaluation import GenerationSettings
from warmstart.config.schema import ExportFormat
from warmstart.convert.formats import Search, convert
from warmstart.errors import UserError

TOKENIZERS = SimpleNamespace(marks=SimpleNamespace(as_dict=dict))


@pytest.mark.parametrize("to", [one for one in ExportFormat if one is not ExportFormat.safetensors])
def test_a_model_with_a_prompt_is_refused(to, tmp_path):
    model = pair("gpt2")
    model.config.prompt_ids = [7, 8]
    with pytest.raises(UserError, match=r"begins every target with a prompt of 2 tokens.*Set format=safetensors"):
        convert(to, model, TOKENIZERS, tmp_path, Search(GenerationSettings(), 7))
    assert not list(tmp_path.iterdir())
