"""What the meter counts, and what it leaves out."""

import time

import lightning as L
import pytest
import torch
from tiny_training import Letters, Recorder, Rows, batches, fit, in_parts, rows, tiny_model
from written_training import run

from warmstart.config.precision import training_dtype
from warmstart.config.training import OptimSettings
from warmstart.profiling.flops import count_flops
from warmstart.profiling.matrix_peak import MatrixPeak, matrix_peak
from warmstart.training.throughput import ThroughputMeter, peak_memory_bytes

FLOPS = count_flops(tiny_model())


def real_tokens(batch):
    return float(batch["attention_mask"].sum() + (batch["labels"] != -100).sum())


def test_padding_does_not_count_and_ranks_add_up():
    meter, batch = ThroughputMeter(), rows()
    meter.count(batch, FLOPS)
    meter.pause()
    one, two = meter.total(), meter.total(world_size=2)
    places = batch["input_ids"].numel() + batch["labels"].numel()
    assert one["padding_fraction"] == pytest.approx(1 - real_tokens(batch) / places)
    assert one["tokens_per_second"] / one["examples_per_second"] == pytest.approx(real_tokens(batch) / 8)
    assert two["tokens_per_second"] == pytest.approx(2 * one["tokens_per_second"])


class Read(L.Callback):
    """Counts the positions that encoder and decoder process in training, including padding."""

    def __init__(self):
        self.places = self.tokens = self.cut = 0

    def on_train_start(self, trainer, module):
        data = rows()
        module.model.training_loss(data["input_ids"], data["attention_mask"], data["labels"])  # tries the head
        for half in (module.model.encoder, module.model.decoder):
            half.get_input_embeddings().register_forward_hook(self.read)

    def read(self, embeddings, args, output):
        self.places += args[0].numel() if embeddings.training else 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.tokens += real_tokens(batch)
        self.cut += len(batch["buckets"]) > 1


@pytest.mark.parametrize("of", ["tiny rows", "written texts"])
def test_padding_is_what_encoder_and_decoder_process_in_addition_to_tokens(of, tmp_path):
    read = Read()
    if of == "tiny rows":
        train = [in_parts(batch) for batch in batches(4)]
        module, _ = fit(tmp_path, 4, 1, callbacks=[read], train=train)
        assert read.places == 8 * 6 + sum(a * b for batch in train for a, b in batch["buckets"]) < 8 * (6 + 8)
    else:
        module, trainer = run(
            tmp_path / "run", tmp_path / "cache", callbacks=[read], max_tokens=384, max_epochs=1, max_steps=-1
        )
        sampler = trainer.train_dataloader.batch_sampler
        assert sampler.padding_fraction() == pytest.approx(1 - read.tokens / read.places)
    assert read.cut
    assert module.throughput()["padding_fraction"] == pytest.approx(1 - read.tokens / read.places)


def test_pauses_do_not_count_and_each_reading_starts_over():
    meter, batch = ThroughputMeter(), rows()
    meter.count(batch, FLOPS)
    meter.pause()
    time.sleep(0.2)
    assert meter.total()["examples_per_second"] > 8 / 0.2
    meter.since_last_read()
    assert meter.since_last_read()["examples_per_second"] == 0.0
    assert meter.total()["examples_per_second"] > 0.0


def flops_of(batch, count=FLOPS):
    return sum(
        count.of(int(mask.sum()), int((labels != -100).sum()))
        for mask, labels in zip(batch["attention_mask"], batch["labels"], strict=True)
    )


def test_model_flops_are_those_of_the_real_tokens_and_mfu_their_share_of_the_peak():
    meter, batch = ThroughputMeter(), rows()
    for _ in range(3):
        meter.count(batch, FLOPS)
    meter.pause()
    peak = MatrixPeak(1e9, 512, torch.float32)
    one, two = meter.total(peak=peak), meter.total(2, peak)
    assert one["model_flops_per_second"] / one["examples_per_second"] == pytest.approx(flops_of(batch) / 8)
    assert one["mfu"] == pytest.approx(one["model_flops_per_second"] / 1e9)
    assert two["mfu"] == one["mfu"]  # of the peak of two devices
    assert two["model_flops_per_second"] == 2 * one["model_flops_per_second"]


def test_batches_before_the_unfreezing_keep_their_flops():
    model = tiny_model()
    model.freeze_encoder()
    model.freeze_decoder()
    still, meter, batch = count_flops(model), ThroughputMeter(), rows()
    meter.count(batch, still)
    meter.count(batch, FLOPS)
    meter.count(batch, FLOPS)
    meter.pause()
    total = meter.total()
    expected = (flops_of(batch, still) + 2 * flops_of(batch)) / (3 * 8)
    assert flops_of(batch, still) < 0.8 * flops_of(batch)
    assert total["model_flops_per_second"] / total["examples_per_second"] == pytest.approx(expected)
    assert total["tokens_per_second"] / total["examples_per_second"] == pytest.approx(real_tokens(batch) / 8)


def test_a_fit_logs_mfu_and_counts_its_warmup_by_itself(tmp_path):
    log, model = Rows(), tiny_model().double()
    choices = {"total_steps": 4, "hparams": {}, "log_every": 1, "unfreeze_after": 2}
    module = Recorder(model, Letters(), OptimSettings(), {"max_new_tokens": 4}, **choices)
    module.configure_gradient_clipping = super(Recorder, module).configure_gradient_clipping  # some have no gradient
    fit(tmp_path, 2, 1, module=module, loggers=[log])
    names = ("model_flops_per_second", "examples_per_second", "mfu")
    flops, examples, mfu = (log.of(f"throughput/{name}") for name in names)
    per_example = [a / b for a, b in zip(flops, examples, strict=True)]
    assert len(per_example) == 4
    still = tiny_model()
    still.freeze_encoder()
    still.freeze_decoder()
    counts = [count_flops(still)] * 2 + [FLOPS] * 2
    data = rows()
    for i, count in enumerate(counts):
        part = {name: values[2 * i : 2 * i + 2] for name, values in data.items()}
        assert per_example[i] == pytest.approx(flops_of(part, count) / 2, rel=1e-6)
    peak = matrix_peak(torch.device("cpu"), str(module.trainer.precision))
    assert mfu == pytest.approx([value / peak.flops_per_second for value in flops], rel=1e-6)
    result = module.throughput()
    assert result["mfu"] * result["matrix_peak_flops_per_second"] == pytest.approx(result["model_flops_per_second"])


def test_counting_does_not_read_the_device(monkeypatch):
    meter, read = ThroughputMeter(), []
    for name in ("item", "tolist", "__int__", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, lambda self, *_, of=name: read.append(of))
    meter.count(rows(), FLOPS)
    meter.count(rows(), FLOPS)
    assert not read


def test_the_peak_is_measured_once_in_the_precision_of_training():
    state = torch.get_rng_state()
    found = matrix_peak(torch.device("cpu"), "32-true")
    assert torch.equal(torch.get_rng_state(), state)
    assert found.flops_per_second > 1e8
    assert matrix_peak(torch.device("cpu"), "32-true") is found
    kinds = [torch.bfloat16, torch.bfloat16, torch.float16, torch.float32, torch.float64]
    precisions = ["bf16-mixed", "bf16-true", "16-mixed", "32-true", "64-true"]
    assert [training_dtype(precision) for precision in precisions] == kinds


def test_an_idle_meter_reports_zero():
    assert set(ThroughputMeter().total().values()) == {0.0}
    assert peak_memory_bytes(torch.device("cpu")) > 10_000_000
