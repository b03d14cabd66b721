"""Decoders whose cache gives wrong results generate without it: with beams, alone, and in several threads."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from warmstart import DecoderOnlyModel, EncoderDecoderConfig, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import END, PAD, START, tiny_config
from warmstart.model.decoder_only import DecoderOnlyConfig

IDS = {"decoder_start_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
SEEDS = range(3)


def model_of(kind, seed, *, encoder=True):
    torch.manual_seed(seed)
    if encoder:
        model = EncoderDecoderModel(EncoderDecoderConfig(encoder=tiny_config("bert"), decoder=tiny_config(kind), **IDS))
    else:
        model = DecoderOnlyModel(DecoderOnlyConfig(decoder=tiny_config(kind), **IDS))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or "gate" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def generated(model, ids, beams=3, length=8, **options):
    lengths = {"max_new_tokens": length, "min_new_tokens": length}
    mask = torch.ones_like(ids)
    return model.generate(ids, attention_mask=mask, num_beams=beams, do_sample=False, **lengths, **options).tolist()


@pytest.mark.parametrize("kind", ["recurrent_gemma", "minimax", "xlstm"])
def test_beams_of_a_pair_equal_those_without_a_cache(kind):
    models = [model_of(kind, seed) for seed in SEEDS]
    ids = torch.randint(5, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    found = [generated(model, ids) for model in models]
    assert found == [generated(model, ids, use_cache=False) for model in models]


def test_beams_without_an_encoder_equal_those_without_a_cache():
    models = [model_of("minimax", seed, encoder=False) for seed in SEEDS]
    ids = torch.randint(5, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    found = [generated(model, ids) for model in models]
    assert found == [generated(model, ids, use_cache=False) for model in models]


@pytest.mark.parametrize("kind", ["recurrent_gemma", "rwkv", "xlstm"])
def test_a_text_without_a_source_equals_that_without_a_cache(kind):
    for model in (model_of(kind, seed) for seed in SEEDS):
        search = {"num_beams": 3, "do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}
        found = model.generate_alone(**search)
        assert torch.equal(found, model.generate_alone(**search, use_cache=False))


@pytest.fixture
def _eager_threads():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(call, batches):
    """Repeat a call for each batch in a thread of its own, and return what differs from single calls."""
    expected = [call(batch) for batch in batches]
    with ThreadPoolExecutor(len(batches)) as pool:
        return [found for _ in range(3) for found in pool.map(call, batches) if found not in expected]


BATCHES = [torch.randint(5, 90, (size, 9), generator=torch.Generator().manual_seed(size)) for size in (1, 2, 3, 4)]


@pytest.mark.usefixtures("_eager_threads")
def test_a_decoder_that_keeps_its_state_in_its_modules_serves_several_threads():
    model = model_of("recurrent_gemma", 12)
    with pytest.raises(IndexError):  # a call that fails does not block other threads
        model(BATCHES[0], decoder_input_ids=torch.tensor([[1000]]))
    assert in_threads(lambda ids: generated(model, ids, beams=1), BATCHES) == []
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert generated(again, BATCHES[0]) == generated(model, BATCHES[0])


@pytest.mark.usefixtures("_eager_threads")
def test_an_encoder_that_keeps_its_state_in_its_modules_serves_several_threads():
    config = EncoderDecoderConfig(encoder=tiny_config("recurrent_gemma"), decoder=tiny_config("gpt2"), **IDS)
    model = EncoderDecoderModel(config).eval()
    assert in_threads(lambda ids: generated(model, ids, beams=1), BATCHES) == []
