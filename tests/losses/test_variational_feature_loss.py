"""L_VID of PISR: by its formula, its optimum in the scale, its units, and what it refuses."""

import math

import pytest
import torch
from torch import nn

from basicsr_clsd.losses import Outputs, VariationalFeatureLoss

SHAPE = (2, 4, 5, 6)


def outputs(feature):
    return Outputs(torch.zeros(2, 3, 10, 12), [feature])


def features(seed=0):
    torch.manual_seed(seed)
    return torch.randn(SHAPE), torch.randn(SHAPE)


def value(loss, student, teacher):
    return loss(outputs(student), outputs(teacher), torch.zeros(2, 3, 10, 12))


def constant_predictors(loss, mu, v):
    """Let the predictors say mu, and v before softplus, whatever they see."""
    for modules, number in ((loss.locations, mu), (loss.scales, v)):
        last = modules[0][2]
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, number)


def official(student, teacher, loss):
    """The code's expression."""
    mu = loss.locations[0](student)
    b = 0.1 * torch.log1p(torch.exp(loss.scales[0](student))) + 1e-8
    return (teacher.shape[1] * 0.5 * math.log(2 * math.pi) + torch.log(2 * b) + (mu - teacher).abs() / b).mean()


def test_with_the_constant_it_is_the_expression_of_the_official_code():
    student, teacher = features()
    loss = VariationalFeatureLoss([4], [4], loss_weight=1, feature_scale=1, constant=True)
    torch.testing.assert_close(value(loss, student, teacher), official(student, teacher, loss))
    bare = VariationalFeatureLoss([4], [4], loss_weight=3, feature_scale=1)
    bare.load_state_dict(loss.state_dict())
    wanted = 3 * (official(student, teacher, loss) - 4 * 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(value(bare, student, teacher), wanted)


def test_values_by_hand_and_the_optimum_of_the_scale():
    loss = VariationalFeatureLoss([4], [4], feature_scale=1)
    teacher, student = torch.full(SHAPE, 0.5), torch.zeros(SHAPE)
    constant_predictors(loss, mu=0.5, v=1.0)
    b = 0.1 * math.log(1 + math.e) + 1e-8
    assert value(loss, student, teacher).item() == pytest.approx(math.log(2 * b), rel=1e-6)  # mu = F_T
    constant_predictors(loss, mu=0.2, v=1.0)
    assert value(loss, student, teacher).item() == pytest.approx(math.log(2 * b) + 0.3 / b, rel=1e-5)
    # At b = |mu - F_T| the derivative in b is 0.
    distance = 0.5 - b
    constant_predictors(loss, mu=distance, v=1.0)
    (gradient,) = torch.autograd.grad(value(loss, student, teacher), loss.scales[0][2].bias)
    constant_predictors(loss, mu=distance - 0.1, v=1.0)
    (other,) = torch.autograd.grad(value(loss, student, teacher), loss.scales[0][2].bias)
    assert gradient.abs().max() < 1e-5
    assert other.abs().max() > 0.1


def test_taps_are_summed():
    student, teacher = features()
    one = VariationalFeatureLoss([4], [4])
    two = VariationalFeatureLoss([4, 4], [4, 4])
    for modules, single in ((two.locations, one.locations), (two.scales, one.scales)):
        for predictor in modules:
            predictor.load_state_dict(single[0].state_dict())
    image = torch.zeros(2, 3, 10, 12)
    both = two(Outputs(image, [student] * 2), Outputs(image, [teacher] * 2), image)
    torch.testing.assert_close(both, 2 * value(one, student, teacher))


def test_features_and_their_scale_times_one_factor_change_nothing():
    student, teacher = features()
    one, other = (VariationalFeatureLoss([4], [4], feature_scale=scale) for scale in (1, 255))
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(value(one, student, teacher), value(other, 255 * student, 255 * teacher))
    assert abs(value(one, student, teacher) - value(one, 255 * student, 255 * teacher)) > 1


def test_parameters_are_counted_and_channels_of_the_teacher_may_be_others():
    count = sum(parameter.numel() for parameter in VariationalFeatureLoss([64], [64]).parameters())
    assert count == 16_642
    loss = VariationalFeatureLoss([4], [7])
    assert value(loss, torch.randn(SHAPE), torch.randn(2, 7, 5, 6)).isfinite()


def test_scale_of_nothing_is_refused():
    with pytest.raises(ValueError, match='feature_scale must be positive, not 0'):
        VariationalFeatureLoss([4], [4], feature_scale=0)
