"""Distillation and R-Drop: values by formula, gradients by autograd on the full logits, and label positions only."""

import math

import pytest
import torch
from test_bucketed_loss import BUCKETS, PAIRS, batch
from tiny import OURS, small_config, small_decoder_config
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from warmstart.model import loss as loss_module
from warmstart.model.call_checks import has_dropout
from warmstart.model.soft_targets import SoftTargets, divergence, mutual_divergence


def model_of(kind, seed=0):
    torch.manual_seed(seed)
    return PAIRS[kind]().double()


def logits_of(model):
    """The full logits at label positions, (N, V)."""
    data = batch()
    return model(**data).logits[data["labels"] != -100]


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # some norms are always in float32


def test_divergence_of_two_tokens_by_hand():
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(divergence(student, teacher)) == pytest.approx(by_hand)
    other_way = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert float(mutual_divergence(student, teacher)) == pytest.approx((by_hand + other_way) / 2)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_and_its_gradient_are_those_of_autograd(temperature):
    student, teacher = (torch.randn(7, 11, dtype=torch.double) for _ in range(2))
    student.requires_grad_()
    expected = kl_div(
        *(log_softmax(one / temperature, dim=-1) for one in (student, teacher)), reduction="sum", log_target=True
    )
    found = divergence(student, teacher, temperature)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(*(torch.autograd.grad(3 * one, student)[0] for one in (found, expected)))


def test_mutual_divergence_and_its_gradients_are_those_of_autograd():
    both = [torch.randn(7, 11, dtype=torch.double, requires_grad=True) for _ in range(2)]
    logs = [log_softmax(one, dim=-1) for one in both]
    expected = sum(kl_div(*pair, reduction="sum", log_target=True) for pair in (logs, logs[::-1])) / 2
    found = mutual_divergence(*both)
    torch.testing.assert_close(found, expected.detach())
    for one, other in zip(*(torch.autograd.grad(3 * value, both) for value in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_logits_are_compared_in_float32(dtype):
    narrow = [torch.randn(5, 9).to(dtype).requires_grad_() for _ in range(2)]
    wide = [one.detach().float().requires_grad_() for one in narrow]
    for function in (divergence, mutual_divergence):
        found, expected = function(*narrow), function(*wide)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
        found.backward()
        assert narrow[0].grad.dtype == dtype


def test_masked_tokens_do_not_diverge():
    minus = -math.inf
    student, teacher = torch.tensor([[0.0, math.log(3), minus, 0.0]]), torch.tensor([[0.0, 0.0, minus, minus]])
    student.requires_grad_()
    found = divergence(student, teacher)
    assert float(found.detach()) == pytest.approx(0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.6))
    found.backward()
    assert student.grad.tolist()[0] == pytest.approx([0.2 - 0.5, 0.6 - 0.5, 0.0, 0.2])
    both = [torch.tensor([[0.0, 1.0, minus]]).requires_grad_(), torch.tensor([[0.0, 0.0, minus]]).requires_grad_()]
    short = [one.detach()[:, :2].requires_grad_() for one in both]
    found, expected = mutual_divergence(*both), mutual_divergence(*short)
    torch.testing.assert_close(found, expected)
    for loss in (found, expected):
        loss.backward()
    for one, other in zip(both, short, strict=True):
        assert one.grad[0, 2] == 0
        torch.testing.assert_close(one.grad[:, :2], other.grad)
    broken = torch.tensor([[0.0, math.nan]])
    assert divergence(broken, torch.zeros(1, 2)).isnan()  # a model that diverged stays visible


def test_other_vocabulary_of_the_teacher_is_refused():
    with pytest.raises(ValueError, match="logits for 4 tokens, the student for 3"):
        divergence(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [4096, 5])
@pytest.mark.parametrize("kind", ["native", "grafted", "scaled head"])
def test_distilled_loss_and_gradients_are_those_of_the_full_logits(kind, chunk, smoothing, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    model, teacher = model_of(kind), model_of("native", seed=5)
    data, weight, temperature = batch(), 0.3, 2.0
    labels = data["labels"][data["labels"] != -100]
    student, taught = logits_of(model), logits_of(teacher).detach()
    soft = kl_div(*(log_softmax(one / temperature, -1) for one in (student, taught)), reduction="sum", log_target=True)
    hard = cross_entropy(student, labels, reduction="sum", label_smoothing=smoothing)
    expected = (1 - weight) * hard + weight * temperature**2 * soft
    gradients = gradients_of(model, expected)
    targets = SoftTargets(teacher, weight, temperature)
    for buckets in (None, BUCKETS):
        found = model.training_loss(**data, label_smoothing=smoothing, buckets=buckets, soft_targets=targets)
        assert_same(found.summed, expected.detach())
        assert_same(found.nll, cross_entropy(student, labels, reduction="sum").detach())
        assert found.tokens == len(labels)
        assert_same(gradients_of(model, found.summed), gradients)
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())


def test_loss_without_weight_is_that_of_the_labels_to_the_bit():
    model, teacher = model_of("native"), model_of("native", seed=5)
    plain = model.training_loss(**batch())
    found = model.training_loss(**batch(), soft_targets=SoftTargets(teacher, 0.0, 2.0))
    assert torch.equal(found.summed, plain.summed)
    assert torch.equal(found.nll, plain.nll)


def test_a_model_learns_nothing_from_its_equal():
    model = model_of("native")
    found = model.training_loss(**batch(), soft_targets=SoftTargets(model_of("native"), 1.0, 2.0))
    assert found.summed.item() == pytest.approx(0, abs=1e-9)
    assert max(float(gradient.abs().max()) for gradient in gradients_of(model, found.summed).values()) < 1e-9


def test_the_teachers_part_grows_with_the_square_of_the_temperature():
    """At high temperatures the gradient no longer depends on it (Hinton et al. 2015, section 2.1)."""
    model, teacher = model_of("native"), model_of("native", seed=5)
    norms = []
    for temperature in (100.0, 200.0):
        loss = model.training_loss(**batch(), soft_targets=SoftTargets(teacher, 1.0, temperature)).summed
        norms.append(float(torch.nn.utils.get_total_norm(gradients_of(model, loss).values())))
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_a_student_comes_nearer_to_its_teacher():
    model, teacher = model_of("native").train(), model_of("native", seed=5)
    targets, found = SoftTargets(teacher, 1.0), []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        loss = model.training_loss(**batch(), soft_targets=targets).mean
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found[-1] < found[0] / 4
    assert not teacher.training


def with_dropout():
    torch.manual_seed(0)
    config = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.0}
    return OURS.join(small_config("bert", **config), small_decoder_config("bert", **config)).double().train()


def passes_of(model, smoothing, rdrop):
    """R-Drop by the formula, on the full logits of the doubled batch."""
    data = {name: value.repeat_interleave(2, 0) for name, value in batch().items()}
    logits, is_label = model(**data).logits, data["labels"] != -100
    labels = data["labels"][::2][is_label[::2]]
    both = [logits[i::2][is_label[i::2]] for i in (0, 1)]
    logs = [log_softmax(one, dim=-1) for one in both]
    hard = sum(cross_entropy(one, labels, reduction="sum", label_smoothing=smoothing) for one in both) / 2
    mutual = sum(kl_div(*pair, reduction="sum", log_target=True) for pair in (logs, logs[::-1])) / 2
    assert mutual > 0.1
    return hard + rdrop * mutual


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [4096, 5])
def test_rdrop_is_the_formula_on_the_full_logits(chunk, smoothing, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    model = with_dropout()
    model.training_loss(**batch())  # from now on, dropout draws the same masks in ``forward``, too
    torch.manual_seed(3)
    expected = passes_of(model, smoothing, 2.0)
    gradients = gradients_of(model, expected)
    torch.manual_seed(3)
    found = model.training_loss(**batch(), label_smoothing=smoothing, soft_targets=SoftTargets(rdrop=2.0))
    assert_same(found.summed, expected.detach())
    assert_same(gradients_of(model, found.summed), gradients)
    assert found.tokens == (batch()["labels"] != -100).sum()


@pytest.mark.parametrize("kind", PAIRS)
def test_two_equal_passes_have_the_loss_of_one(kind):
    model = model_of(kind)
    plain = model.training_loss(**batch(), label_smoothing=0.1)
    gradients = gradients_of(model, plain.summed)
    for buckets in (None, BUCKETS):
        targets = SoftTargets(rdrop=5.0)
        found = model.training_loss(**batch(), label_smoothing=0.1, buckets=buckets, soft_targets=targets)
        for one, other in zip(found, plain, strict=True):
            assert_same(one.detach(), other.detach())
        assert_same(gradients_of(model, found.summed), gradients)


def test_rdrop_with_a_teacher_has_both_terms():
    model, teacher = model_of("native"), model_of("native", seed=5)
    alone = model.training_loss(**batch(), soft_targets=SoftTargets(teacher, 0.4, 2.0))
    both = model.training_loss(**batch(), buckets=BUCKETS, soft_targets=SoftTargets(teacher, 0.4, 2.0, rdrop=1.0))
    assert_same(both.summed, alone.summed)  # two equal passes do not diverge


def test_windows_are_repeated_with_their_example():
    model, data = model_of("native"), batch()
    for name in ("input_ids", "attention_mask"):
        data[name] = torch.stack([data[name], data[name].flip(0)], dim=1)
    plain = model.training_loss(**data)
    assert_same(model.training_loss(**data, soft_targets=SoftTargets(rdrop=1.0)).summed, plain.summed)


def test_teacher_takes_the_dtype_of_the_fit():
    teacher = PAIRS["grafted"]()
    SoftTargets(teacher).to(torch.device("cpu"), torch.bfloat16)
    assert teacher.dtype == torch.bfloat16


def test_dropout_is_found_in_modules_and_in_functions():
    assert has_dropout(with_dropout())
    assert not has_dropout(PAIRS["grafted"]())
