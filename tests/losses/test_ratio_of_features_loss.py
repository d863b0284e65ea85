"""The contrastive ratio of CSD against its formula, and what it does not depend on."""

import pytest
import torch

from basicsr_clsd.losses import RatioOfFeaturesLoss

BATCH, NEGATIVES = 3, 2


def images(seed, count=BATCH):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(student, teacher, negatives):
    """A and B of one layer, image by image and value by value."""
    positive = sum((student[i] - teacher[i]).abs().sum().item() for i in range(len(student)))
    negative = sum(
        abs(student[i].flatten()[d].item() - other.flatten()[d].item())
        for i in range(len(student))
        for other in negatives
        for d in range(student[i].numel())
    )
    return positive / student.numel(), negative / student.numel()


def test_value_is_that_of_the_formula_and_no_mean_of_ratios():
    student, teacher, negatives = images(0), images(1), images(2, NEGATIVES)
    loss = RatioOfFeaturesLoss(7.0, NEGATIVES)
    found = loss.measure([student], [teacher], [negatives])
    positive, negative = by_hand(student, teacher, negatives)
    assert found.positive.tolist() == pytest.approx([positive])
    assert found.negative.tolist() == pytest.approx([negative])
    assert found.loss.item() == pytest.approx(7 * positive / (negative + 1e-7))
    single = [by_hand(student[i : i + 1], teacher[i : i + 1], negatives) for i in range(BATCH)]
    mean_of_ratios = sum(above / below for above, below in single) / BATCH
    assert abs(found.loss.item() / 7 - mean_of_ratios) > 1e-3


def test_layers_are_weighted_and_summed():
    student, teacher, negatives = (
        [images(seed + layer, count) for layer in range(5)]
        for seed, count in ((0, BATCH), (10, BATCH), (20, NEGATIVES))
    )
    ratios = [above / (below + 1e-7) for above, below in map(by_hand, student, teacher, negatives)]
    wanted = sum(weight * ratio for weight, ratio in zip((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), ratios, strict=True))
    assert RatioOfFeaturesLoss(1.0)(student, teacher, negatives).item() == pytest.approx(wanted, rel=1e-6)
    last_two = RatioOfFeaturesLoss(1.0)(student[3:], teacher[3:], negatives[3:]).item()
    assert last_two == pytest.approx(ratios[3] / 4 + ratios[4], rel=1e-6)
    chosen = RatioOfFeaturesLoss(1.0, layer_weights=[2, 0])(student[:2], teacher[:2], negatives[:2]).item()
    assert chosen == pytest.approx(2 * ratios[0], rel=1e-6)
    with pytest.raises(ValueError, match='layer_weights: 2 for 5 features'):
        RatioOfFeaturesLoss(1.0, layer_weights=[1, 1])(student, teacher, negatives)


def test_gradient_is_that_of_the_formula_and_reaches_the_student_alone():
    student, teacher, negatives = (value.requires_grad_() for value in (images(0), images(1), images(2, NEGATIVES)))
    RatioOfFeaturesLoss(3.0)([student], [teacher], [negatives]).backward()
    plain = student.detach().clone().requires_grad_()
    above = (plain - teacher.detach()).abs().mean()
    below = (negatives.detach()[None] - plain[:, None]).abs().sum(1).mean()
    (wanted,) = torch.autograd.grad(3 * above / (below + 1e-7), plain)
    torch.testing.assert_close(student.grad, wanted)
    assert teacher.grad is None and negatives.grad is None
    RatioOfFeaturesLoss(3.0, detach_teacher=False)([student], [teacher], [negatives]).backward()
    assert teacher.grad.any()


def test_order_of_negatives_does_not_matter_but_which_they_are():
    student, teacher, negatives = images(0), images(1), images(2, 3)
    loss = RatioOfFeaturesLoss(1.0)
    value = loss([student], [teacher], [negatives]).item()
    assert loss([student], [teacher], [negatives[[2, 0, 1]]]).item() == pytest.approx(value, rel=1e-12)
    others = torch.cat([negatives[:2], images(3, 1)])
    assert abs(loss([student], [teacher], [others]).item() - value) > 1e-4


def test_equal_outputs_give_0_and_a_common_factor_changes_nothing():
    student, teacher, negatives = images(0), images(1), images(2)
    loss = RatioOfFeaturesLoss(1.0)
    assert loss([student], [student], [negatives]).item() == 0
    value = loss([student], [teacher], [negatives]).item()
    assert loss([9 * student], [9 * teacher], [9 * negatives]).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('number', [0, 2.5, True])
def test_number_of_negatives_must_be_one(number):
    with pytest.raises(ValueError, match='num_negative must be a number from 1'):
        RatioOfFeaturesLoss(num_negative=number)
