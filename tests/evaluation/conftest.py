"""Real sentences to score: the synthetic texts."""

import pytest

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.sources.load import load_source


@pytest.fixture(scope="session")
def examples():
    return list(load_source(DataSettings(name="written", kind=DataKind.written)).split("train"))


@pytest.fixture(scope="session")
def documents(examples):
    return [example.document for example in examples]


@pytest.fixture(scope="session")
def references(examples):
    return [example.summary for example in examples]
