"""Concurrent calls of one model in several threads give the results of single calls."""

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import IDS, small_config, small_decoder_config, source, target
from transformers import LogitsProcessor, LogitsProcessorList

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.shared_change import is_inside, shared_change

SEARCHES = [
    {"num_beams": 4, "max_new_tokens": 10},
    {"max_new_tokens": 10},
    {"num_beams": 2, "max_new_tokens": 12},
    {"num_beams": 3, "max_new_tokens": 8, "num_return_sequences": 2},
]
SOURCES = [source(rows, 7 + rows, 10 + rows) for rows in (1, 2, 3, 4)]
LLAMA = {"num_hidden_layers": 2, "num_key_value_heads": 2, "is_decoder": True, "add_cross_attention": False}


def decoder_config(kind):
    return small_decoder_config("llama", **LLAMA) if kind == "llama" else small_decoder_config(kind)


def pair(kind, **objects):
    torch.manual_seed(0)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(small_config("bert"), decoder_config(kind), **IDS)
    model = EncoderDecoderModel(config, **objects).eval()
    if config.graft is not None:
        for layer in model.cross_attention.values():
            torch.nn.init.constant_(layer.gate, 0.7)
    return model


@pytest.fixture(params=["bert", "gpt2", "llama"])
def kind(request):
    return request.param


def in_threads(*calls):
    """Repeat each call in a thread of its own, and return the results that differ from those of a single call."""
    expected = [call() for call in calls]
    start = threading.Barrier(len(calls))

    def repeat(call, wanted):
        start.wait()
        return [found for found in (call() for _ in range(6)) if found != wanted]

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(repeat, call, wanted) for call, wanted in zip(calls, expected, strict=True)]
        return [future.result() for future in futures]


def generation_of(model, sources, search):
    return lambda: model.generate(**sources, **search).tolist()


def test_concurrent_searches_of_one_model(kind):
    model = pair(kind)
    calls = [generation_of(model, sources, search) for sources, search in zip(SOURCES, SEARCHES, strict=True)]
    assert in_threads(*calls) == [[], [], [], []]


def test_concurrent_losses_likelihoods_and_searches_of_one_model(kind):
    model, labels = pair(kind), target(3)

    def loss():
        return [float(part.detach()) for part in model.training_loss(**SOURCES[2], labels=labels)]

    def likelihood():
        return model.likelihood(**SOURCES[2], labels=labels, read_source=False)[0].tolist()

    def without_source():
        return model.generate_alone(max_new_tokens=8).tolist()

    def logits():
        with torch.no_grad():
            return model(**SOURCES[2], labels=labels).logits.tolist()

    calls = [generation_of(model, SOURCES[0], SEARCHES[0]), loss, likelihood, without_source, logits]
    assert in_threads(*calls) == [[], [], [], [], []]


def test_two_models_that_share_a_decoder(kind):
    """Each model uses its own source and generation config, even while the other one runs."""
    first = pair(kind)
    second = pair(kind, encoder=pair("bert").encoder, decoder=first.decoder)
    second.generation_config.num_beams, second.generation_config.max_new_tokens = 3, 6
    if kind == "llama":
        for layer in second.cross_attention.values():
            torch.nn.init.normal_(layer.o_proj.weight, std=0.5)
    calls = [
        generation_of(first, SOURCES[1], SEARCHES[0]),
        generation_of(second, SOURCES[2], {}),
        generation_of(first, SOURCES[0], {}),
    ]
    assert len(calls[1]()[0]) == 7
    assert in_threads(*calls) == [[], [], []]


def test_searches_in_threads_of_an_event_loop(kind):
    model = pair(kind)
    calls = [generation_of(model, sources, search) for sources, search in zip(SOURCES, SEARCHES, strict=True)]
    expected = [call() for call in calls]

    async def gather():
        return await asyncio.gather(*(asyncio.to_thread(call) for call in calls * 3))

    assert asyncio.run(gather()) == expected * 3


class Nested(LogitsProcessor):
    """A logits processor that calls the model during a search, as a callback may."""

    def __init__(self, call):
        self.call, self.results = call, []

    def __call__(self, input_ids, scores):
        self.results.append(self.call())
        return scores


def test_search_within_a_search(kind):
    model = pair(kind)
    inner = generation_of(model, SOURCES[2], SEARCHES[2])
    outer = generation_of(model, SOURCES[1], SEARCHES[0])
    nested, wanted, expected = Nested(inner), inner(), outer()
    found = model.generate(**SOURCES[1], **SEARCHES[0], logits_processor=LogitsProcessorList([nested])).tolist()
    assert found == expected
    assert nested.results
    assert all(result == wanted for result in nested.results)


def test_weight_update_between_two_searches_is_used(kind):
    """Prepacked weights are freed at the end of a search."""
    model = pair(kind)
    call = generation_of(model, SOURCES[1], SEARCHES[0])
    call()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(-1.5)
    fresh = copy.deepcopy(model)
    assert call() == generation_of(fresh, SOURCES[1], SEARCHES[0])()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_their_own_sources(kind, again):
    model = pair(kind)
    copied = again(model)
    calls = [generation_of(model, SOURCES[1], SEARCHES[0]), generation_of(copied, SOURCES[2], SEARCHES[0])]
    assert calls[1]() == generation_of(model, SOURCES[2], SEARCHES[0])()
    assert in_threads(*calls) == [[], []]


def test_shared_change_lasts_from_the_first_call_to_the_last():
    module, log = torch.nn.Linear(1, 1), []

    def make():
        log.append("made")
        return lambda: log.append("undone")

    def another():
        assert not is_inside("change")
        with shared_change(module, "change", make):
            assert is_inside("change")
            entered.set()
            leave.wait(60)

    entered, leave = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with shared_change(module, "change", make):
            future = pool.submit(another)
            assert entered.wait(60)
        assert log == ["made"]
        leave.set()
        future.result()
    assert log == ["made", "undone"]
    assert not is_inside("change")
