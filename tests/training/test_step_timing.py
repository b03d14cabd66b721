"""Choosing threads and steps before a fit."""

import itertools
import logging

import pytest
import torch
from tiny_training import rows, tiny_model

from warmstart.config.training import NewOptimizer, OptimSettings, TrainerSettings
from warmstart.training import step_timing
from warmstart.training.step_timing import MIN_SHARE, FitPlan, plan_fit, step_seconds

CPU = TrainerSettings(accelerator="cpu", precision="32-true")


def settings(**changed):
    return TrainerSettings(accelerator="cpu", precision="32-true", **changed)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_timing_changes_neither_weights_nor_mode_nor_random_state(threads):
    model = tiny_model().eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    seconds = step_seconds(model, [rows(), rows()], CPU, OptimSettings(), torch.device("cpu"), [1, 2])
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    assert set(seconds) == {1, 2}
    assert min(seconds.values()) > 0
    assert not model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("new_optimizer", list(NewOptimizer))
@pytest.mark.parametrize("factor", [float("inf"), float("nan"), 1e30])
def test_timing_does_not_change_weights_whose_gradient_is_not_finite(factor, new_optimizer):
    model = tiny_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient * factor)
    optim = OptimSettings(new_optimizer=new_optimizer)
    step_seconds(model, [rows(), rows()], CPU, optim, torch.device("cpu"), [1])
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_accumulated_batches_count_in_a_step(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(step_timing.time, "perf_counter", lambda: float(next(ticks)))  # each timed span lasts 1 s
    accumulated = settings(accumulate=6)
    seconds = step_seconds(tiny_model(), [rows(), rows()], accumulated, OptimSettings(), torch.device("cpu"), [1])
    assert seconds == {1: 6 * 1 / 2 + 1}  # six of two batches that take 1 s together, and one optimizer update


@pytest.mark.parametrize(("seconds", "faster"), [({1: 1.0, 2: 3.0}, 1), ({1: 3.0, 2: 1.0}, 2)])
def test_the_faster_number_of_threads_is_used(monkeypatch, threads, caplog, seconds, faster):
    tried = []
    monkeypatch.setattr(step_timing, "step_seconds", lambda *given: tried.append(given[5]) or seconds)
    with caplog.at_level(logging.INFO):
        plan = plan_fit(None, [], settings(measure_threads=True), OptimSettings(), 10)
    assert tried == [[1, 2]]
    assert plan == FitPlan(10, faster)
    assert torch.get_num_threads() == faster
    assert f"The fit uses {faster}" in caplog.text


@pytest.mark.parametrize(
    ("minutes", "steps", "words"),
    [
        (10, 420, "420 optimizer steps of about 1.00 s take about 7.0 minutes"),
        (5, 300, "allows 300, so this fit takes 300 steps (about 5 minutes)"),
        (0.5, round(MIN_SHARE * 420), "allows 30, so this fit takes 105 steps (about 2 minutes)"),
    ],
)
def test_the_budget_decides_the_steps_and_the_log_reports_it(monkeypatch, caplog, minutes, steps, words):
    monkeypatch.setattr(step_timing, "step_seconds", lambda *given: dict.fromkeys(given[5], 1.0))
    with caplog.at_level(logging.INFO):
        plan = plan_fit(None, [], settings(budget_minutes=minutes), OptimSettings(), 420)
    assert plan == FitPlan(steps, None)
    assert words in caplog.text
    assert "slow" not in caplog.text  # max_steps may be an upper bound on purpose
