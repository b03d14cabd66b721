"""Encoders whose states depend on padding say so once."""

import logging

import pytest
import torch
from tiny import IDS, OURS, decoder_half, source

from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.model.padding import READS_PADDING, _warn_of_padding


@pytest.fixture
def lines(caplog):
    _warn_of_padding.cache_clear()
    caplog.set_level(logging.WARNING, "warmstart")
    return lambda: [record.getMessage() for record in caplog.records if "is padded" in record.getMessage()]


@pytest.mark.parametrize("kind", READS_PADDING)
def test_an_encoder_that_reads_padding_warns_once_when_a_batch_is_padded(kind, lines):
    model = OURS.join(tiny_config(kind), decoder_half("bert"))
    padded = source()
    ids = torch.full((3, 2), 5)
    model(**padded | {"attention_mask": torch.ones_like(padded["input_ids"])}, decoder_input_ids=ids)
    assert lines() == []
    model(**padded, decoder_input_ids=ids)
    model.generate(**padded, max_new_tokens=2)
    (line,) = lines()
    assert f"the states of a {kind} encoder change with the padding" in line
    assert "data.batch.size=1" in line


def test_others_do_not(lines):
    model = OURS.join(tiny_config("bert"), decoder_half("bert"), **IDS)
    model(**source(), decoder_input_ids=torch.full((3, 2), 5))
    assert lines() == []
