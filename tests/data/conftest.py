"""A token cache of its own for each test, no hub, and tokenizers small enough to train in a test."""

import functools

import pytest

from warmstart.data.sources.synthetic import read_synthetic
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.train import Family, train_tokenizer


@pytest.fixture(autouse=True)
def _own_cache_and_no_hub(tmp_path, monkeypatch):
    import datasets
    from huggingface_hub import constants

    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@functools.cache
def _texts():
    splits, _ = read_synthetic(None)
    return tuple(text for example in splits["train"] for text in (example.document, example.summary))


@functools.cache
def _tokenizer(family):
    return train_tokenizer(family, _texts(), 600)


@pytest.fixture
def texts():
    return _texts


@pytest.fixture
def pair():
    """BERT's kind of tokenizer for the source, GPT-2's (pad = end) for the target."""
    return TokenizerPair(_tokenizer(Family.wordpiece), _tokenizer(Family.gpt2))


@pytest.fixture(params=list(Family))
def family_pair(request):
    return TokenizerPair(_tokenizer(request.param), _tokenizer(request.param))
