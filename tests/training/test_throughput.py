"""What the meter counts, and what it leaves out."""

import time

import pytest
import torch
from tiny_training import rows

from warmstart.training.throughput import ThroughputMeter, peak_memory_bytes


def real_tokens(batch):
    return float(batch["attention_mask"].sum() + (batch["labels"] != -100).sum())


def test_padding_is_no_token_and_ranks_add_up():
    meter, batch = ThroughputMeter(), rows()
    meter.count(batch)
    meter.pause()
    one, two = meter.total(), meter.total(world_size=2)
    places = batch["input_ids"].numel() + batch["labels"].numel()
    assert one["padding_fraction"] == pytest.approx(1 - real_tokens(batch) / places)
    assert one["tokens_per_second"] / one["examples_per_second"] == pytest.approx(real_tokens(batch) / 8)
    assert two["tokens_per_second"] == pytest.approx(2 * one["tokens_per_second"])


def test_pauses_are_left_out_and_readings_start_anew():
    meter, batch = ThroughputMeter(), rows()
    meter.count(batch)
    meter.pause()
    time.sleep(0.2)
    assert meter.total()["examples_per_second"] > 8 / 0.2
    meter.since_last_read()
    assert meter.since_last_read()["examples_per_second"] == 0.0
    assert meter.total()["examples_per_second"] > 0.0


def test_an_idle_meter_reads_zero():
    assert set(ThroughputMeter().total().values()) == {0.0}
    assert peak_memory_bytes(torch.device("cpu")) > 10_000_000
