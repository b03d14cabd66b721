"""Learning rates at the important steps: the first one, the peak, half-way, the end."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from warmstart.config.training import Decay, OptimSettings
from warmstart.training.schedule import build_schedule, lr_factor, warmup_steps


@pytest.mark.parametrize(
    ("decay", "at_half", "at_end"),
    [
        (Decay.linear, 0.5, 0.0),
        (Decay.cosine, 0.5, 0.0),
        (Decay.constant, 1.0, 1.0),
        (Decay.inverse_sqrt, (10 / 61) ** 0.5, (10 / 111) ** 0.5),
    ],
)
def test_warmup_then_decay(decay, at_half, at_end):
    factor = lr_factor(OptimSettings(warmup_steps=10, decay=decay), 110)
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(60) == pytest.approx(at_half)
    assert factor(110) == pytest.approx(at_end)


def test_noam_is_the_formula_of_the_paper():
    factor = lr_factor(OptimSettings(warmup_steps=40_000, decay=Decay.noam), 300_000, hidden_size=768)
    for step in (1, 100, 39_999, 40_000, 40_001, 300_000):
        expected = 768**-0.5 * min(step**-0.5, step * 40_000**-1.5)
        assert factor(step - 1) == pytest.approx(expected, rel=1e-9)
    assert 0.05 * factor(39_999) == pytest.approx(9.02e-6, rel=1e-3)


def test_noam_unfreezes_pretrained_groups_with_a_warm_up_to_its_own_peak():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0, "name": name} for name in ("new", "encoder")]
    optimizer = torch.optim.AdamW(groups)
    schedule = build_schedule(optimizer, OptimSettings(warmup_steps=4, decay=Decay.noam), 9, 2, hidden_size=16)
    new, pretrained = zip(*([factor(step) for factor in schedule.lr_lambdas] for step in range(9)), strict=True)
    assert new[:4] == pytest.approx([1 / 32, 2 / 32, 3 / 32, 4 / 32])
    assert pretrained[:5] == pytest.approx([0, 0, 1 / 32, 2 / 32, 3 / 32])
    assert pretrained[5:] == pytest.approx(new[5:])


@pytest.mark.parametrize(
    ("step", "encoder", "decoder"),  # by hand from the formulas of Liu & Lapata 2019, section 4.2
    [
        (1, 7.0711e-10, 1.0e-7),  # 2e-3 * 20000^-1.5 and 0.1 * 10000^-1.5
        (100, 7.0711e-8, 1.0e-5),
        (10_000, 7.0711e-6, 1.0e-3),  # 2e-3 * 10000 * 20000^-1.5 and 0.1 / 100
        (20_000, 1.41421e-5, 7.0711e-4),  # 2e-3 / 141.421 and 0.1 / 141.421
        (40_000, 1.0e-5, 5.0e-4),  # 2e-3 / 200 and 0.1 / 200
        (200_000, 4.4721e-6, 2.2361e-4),  # 2e-3 / 447.21 and 0.1 / 447.21
    ],
)
def test_bertsum_has_the_two_schedules_of_its_paper(step, encoder, decoder, settings_of):
    optim = settings_of("optim=bertsum").optim
    assert (optim.weight_decay, optim.betas, optim.label_smoothing) == (0.0, [0.9, 0.999], 0.1)
    peaks = {"encoder": optim.encoder_rate, "encoder_no_decay": optim.encoder_rate, "decoder": optim.decoder_rate}
    peaks |= {"decoder_no_decay": optim.decoder_rate, "new": optim.new_rate, "new_no_decay": optim.new_rate}
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": peak, "name": name} for name, peak in peaks.items()]
    schedule = build_schedule(torch.optim.AdamW(groups), optim, 200_000)
    found = [peak * factor(step - 1) for peak, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    assert found == pytest.approx([encoder, encoder, *[decoder] * 4], rel=1e-4)


def test_warmup_is_steps_or_a_fraction():
    assert warmup_steps(OptimSettings(warmup_fraction=0.06), 1000) == 60
    assert warmup_steps(OptimSettings(warmup_fraction=0.06, warmup_steps=7), 1000) == 7
    assert lr_factor(OptimSettings(warmup_steps=0), 100)(0) == 1.0


@given(st.sampled_from(list(Decay)), st.integers(0, 50), st.integers(1, 200), st.integers(0, 400))
def test_a_learning_rate_is_never_negative_nor_above_its_peak(decay, warmup, total, step):
    assert 0.0 <= lr_factor(OptimSettings(warmup_steps=warmup, decay=decay), total)(step) <= 1.0


def test_every_group_follows_the_schedule_from_its_own_peak():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": peak} for peak in (1.0, 3.0)]
    optimizer = torch.optim.AdamW(groups)
    schedule = build_schedule(optimizer, OptimSettings(warmup_steps=2), 4)
    seen = []
    for _ in range(4):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert seen == [[0.5, 1.5], [1.0, 3.0], [1.0, 3.0], [0.5, 1.5]]
