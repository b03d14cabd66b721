"""Encoders whose states depend on padding log one warning."""

import logging

import pytest
import torch
from tiny import IDS, OURS, small_decoder_config, source

from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.model.padding import READS_PADDING, _warn_of_padding


@pytest.fixture
def lines(caplog):
    _warn_of_padding.cache_clear()
    caplog.set_level(logging.WARNING, "warmstart")
    return lambda: [record.getMessage() for record in caplog.records if "is padded" in record.getMessage()]


@pytest.mark.parametrize("kind", READS_PADDING)
def test_encoder_that_depends_on_padding_warns_once(kind, lines):
    model = OURS.join(tiny_config(kind), small_decoder_config("bert"))
    padded = source()
    ids = torch.full((3, 2), 5)
    model(**padded | {"attention_mask": torch.ones_like(padded["input_ids"])}, decoder_input_ids=ids)
    assert lines() == []
    model(**padded, decoder_input_ids=ids)
    model.generate(**padded, max_new_tokens=2)
    (line,) = lines()
    assert f"the states of a {kind} encoder depend on the padding" in line
    assert "data.batch.size=1" in line
    assert "data.evaluation_max_tokens=1" in line  # validation and test batches have no size


def test_other_encoders_do_not_warn(lines):
    model = OURS.join(tiny_config("bert"), small_decoder_config("bert"), **IDS)
    model(**source(), decoder_input_ids=torch.full((3, 2), 5))
    assert lines() == []
