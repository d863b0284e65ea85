"""FACD-style contrast of features: by its formula, its invariances, its negatives, and which images are distilled."""

import pytest
import torch
from torch import nn

from basicsr_clsd.losses import ContrastiveFeatureLoss, OutputDistillationLoss, Outputs
from basicsr_clsd.losses.adaptive import chosen

COUNT = 4


def images(seed, count=COUNT):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def features(seed, channels, count=COUNT):
    return torch.randn(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))


def build(channels=(5, 6), taps=1, identity=False, **options):
    torch.manual_seed(0)
    loss = ContrastiveFeatureLoss([channels[0]] * taps, [channels[1]] * taps, **{'adaptive': 'none', **options})
    if identity:
        loss.regressors = nn.ModuleList([nn.Identity()] * taps)
    return loss


def value(loss, student, teacher, gt=None):
    srs = [images(seed, len(student[0])) for seed in (1, 2)]
    return loss(Outputs(srs[0], student), Outputs(srs[1], teacher), images(3, len(student[0])) if gt is None else gt)


def formula(loss, student, teacher, mask, negatives=('teacher',)):
    """The sums, pair by pair."""
    total = torch.zeros(())
    for regressor, given, wanted in zip(loss.regressors, student, teacher, strict=True):
        regressed = regressor(given)
        sources = {'teacher': wanted, 'student': regressed.detach()}
        for i in range(len(given)):
            others = [sources[kind][k] for kind in negatives for k in range(len(given)) if k != i]
            below = sum((regressed[i] - other).abs().mean() for other in others)
            total = total + mask[i] * (regressed[i] - wanted[i]).abs().mean() / (below + 1e-7)
    return total


@pytest.mark.parametrize('negatives', [['teacher'], ['student'], ['teacher', 'student']])
@pytest.mark.parametrize('taps', [1, 2])
def test_value_and_gradients_are_those_of_the_formula(negatives, taps):
    loss = build(taps=taps, negatives=negatives, loss_weight=2)
    student = [features(10 + tap, 5).requires_grad_() for tap in range(taps)]
    teacher = [features(20 + tap, 6) for tap in range(taps)]
    found = value(loss, student, teacher)
    wanted = 2 * formula(loss, student, teacher, torch.ones(COUNT), negatives)
    torch.testing.assert_close(found, wanted)
    learnt = [*student, *loss.parameters()]
    for one, other in zip(torch.autograd.grad(found, learnt), torch.autograd.grad(wanted, learnt), strict=True):
        torch.testing.assert_close(one, other)
        assert one.any()
    mean = build(taps=taps, negatives=negatives, loss_weight=2, reduction='mean')
    torch.testing.assert_close(value(mean, student, teacher), wanted / COUNT)


def test_equal_features_give_nothing():
    feature = features(0, 5)
    assert value(build((5, 5), identity=True), [feature], [feature]) == 0


def test_a_common_factor_and_another_order_change_nothing():
    loss, student, teacher = build((5, 5), identity=True), features(0, 5), features(1, 5)
    wanted = value(loss, [student], [teacher])
    torch.testing.assert_close(value(loss, [7 * student], [7 * teacher]), wanted)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(value(loss, [student[order]], [teacher[order]]), wanted)


def test_images_are_chosen_by_their_errors():
    gt, sr = torch.zeros(4, 3, 2, 2), torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    teacher = torch.tensor([2.0, 1.0, 3.0, 0.0]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    assert chosen('teacher_better', sr, teacher, gt).tolist() == [0, 1, 0, 1]
    assert chosen('hard', sr, teacher, gt).tolist() == [0, 0, 1, 1]
    assert chosen('none', sr, teacher, gt).tolist() == [1, 1, 1, 1]
    assert not chosen('teacher_better', sr.clone().requires_grad_(), teacher, gt).requires_grad


def test_masked_images_are_negatives_still_and_the_mean_is_over_all():
    loss = build(adaptive='teacher_better')
    student, teacher = features(0, 5), features(1, 6)
    mask = chosen('teacher_better', images(1), images(2), images(3))
    assert 0 < mask.sum() < COUNT
    torch.testing.assert_close(value(loss, [student], [teacher]), formula(loss, [student], [teacher], mask))
    assert loss.measures['adapt'] == mask.mean()
    outputs = OutputDistillationLoss(2, adaptive='teacher_better')
    found = outputs(Outputs(images(1)), Outputs(images(2)), images(3))
    wanted = 2 * sum(m * (a - b).abs().mean() for m, a, b in zip(mask, images(1), images(2), strict=True)) / COUNT
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('kind', ['features', 'outputs'])
def test_teacher_equal_to_hr_teaches_all_and_student_equal_to_hr_learns_nothing(kind):
    loss = build(adaptive='teacher_better') if kind == 'features' else OutputDistillationLoss(adaptive='teacher_better')
    other = build() if kind == 'features' else OutputDistillationLoss()
    student, teacher = features(0, 5).requires_grad_(), features(1, 6)
    sr, gt = images(1).requires_grad_(), images(3)
    taught = loss(Outputs(sr, [student]), Outputs(gt, [teacher]), gt)
    torch.testing.assert_close(taught, other(Outputs(sr, [student]), Outputs(gt, [teacher]), gt))
    nothing = loss(Outputs(gt.clone().requires_grad_(), [student]), Outputs(images(2), [teacher]), gt)
    gradients = torch.autograd.grad(nothing, [*loss.parameters(), student, sr], allow_unused=True)
    assert nothing == 0 and not any(gradient is not None and gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        ({'negatives': []}, 'negatives must be a list of teacher and student'),
        ({'negatives': 'teacher'}, 'negatives must be a list of teacher and student'),
        ({'negatives': ['cross']}, 'negatives must be a list of teacher and student'),
        ({'reduction': 'max'}, 'reduction must be sum or mean'),
        ({'adaptive': 'yes'}, 'adaptive must be one of none, teacher_better, hard'),
        ({'num_layer': 3}, 'num_layer must be 1 or 2'),
    ],
)
def test_options_that_are_none_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        build(**options)


def test_regressor_has_the_parameters_of_lfd():
    assert sum(parameter.numel() for parameter in build((64, 256)).parameters()) == 82_432
