"""Private methods of transformers and gguf that our classes override still have the expected signatures."""

import inspect

import pytest
from moved import assert_has, assert_parameters
from transformers import GenerationMixin, PreTrainedModel

from warmstart import EncoderDecoderModel

FIRST = ["self", "input_ids", "logits_processor", "stopping_criteria", "generation_config"]
OF_TRANSFORMERS = {
    "_sample": FIRST,
    "_beam_search": FIRST,
    "_expand_inputs_for_generation": ["self", "expand_size", "is_encoder_decoder", "input_ids"],
    "_prepare_cache_for_generation": ["self", "generation_config", "model_kwargs"],
    "_prepare_text_encoder_decoder_kwargs_for_generation": [
        *("self", "inputs_tensor", "model_kwargs", "model_input_name", "generation_config")
    ],
    "_init_weights": ["self", "module"],
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_signature_of_overridden_methods(name):
    base = PreTrainedModel if name == "_init_weights" else GenerationMixin
    assert_has(base, name, "transformers", "5.24.0")
    found = list(inspect.signature(getattr(base, name)).parameters)
    assert_parameters(found, OF_TRANSFORMERS[name], name, "transformers", "5.24.0")
    own = [p.name for p in inspect.signature(getattr(EncoderDecoderModel, name)).parameters.values() if p.kind == 1]
    if not name.endswith(("_sample", "_beam_search")):  # these accept any arguments
        assert own == OF_TRANSFORMERS[name]


def test_list_of_overridden_private_methods_is_complete():
    inherited = {name for base in EncoderDecoderModel.__mro__ if _is_of(base, "transformers") for name in vars(base)}
    ours = {name for base in EncoderDecoderModel.__mro__ if _is_of(base, "warmstart") for name in vars(base)}
    both = {name for name in inherited & ours if name.startswith("_") and not name.startswith("__")}
    assert {name for name in both if inspect.isfunction(getattr(EncoderDecoderModel, name))} == set(OF_TRANSFORMERS)


def _is_of(base, library):
    return base.__module__.split(".")[0] == library


def test_gguf_reader_uses_the_overridden_method():
    gguf = pytest.importorskip("gguf")
    assert_has(gguf.GGUFReader, "_get", "gguf", "0.19.0")
    found = list(inspect.signature(gguf.GGUFReader._get).parameters)
    assert_parameters(found, ["self", "offset", "dtype", "count"], "GGUFReader._get", "gguf", "0.19.0")
