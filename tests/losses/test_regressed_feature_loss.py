"""Losses of regressed features and of outputs, against their formulas, image by image."""

import pytest
import torch
import torch.nn.functional as F
from basicsr.losses import build_loss

from basicsr_clsd.losses import OutputDistillationLoss, Outputs, RegressedFeatureLoss, SelectiveFeatureLoss

CHANNELS = {'student_channels': [4, 6], 'teacher_channels': [7, 5]}
KINDS = [RegressedFeatureLoss, SelectiveFeatureLoss]


@pytest.fixture
def make_outputs():
    """``make_outputs(channels, seed)``: three images of 6x10 pixels and features of 3x5."""

    def make(channels, seed):
        generator = torch.Generator().manual_seed(seed)
        sr = 255 * torch.rand(3, 3, 6, 10, generator=generator)
        return Outputs(sr, [10 * torch.randn(3, count, 3, 5, generator=generator) for count in channels])

    return make


@pytest.fixture
def outputs(make_outputs):
    return make_outputs(CHANNELS['student_channels'], 1), make_outputs(CHANNELS['teacher_channels'], 2)


def regress(loss, number, feature):
    """A regressor, layer by layer, with its weights."""
    layers = [layer for layer in loss.regressors[number] if hasattr(layer, 'weight')]
    for index, layer in enumerate(layers):
        if index:
            feature = torch.where(feature > 0, feature, 0.1 * feature)
        feature = F.conv2d(feature, layer.weight, layer.bias, padding=layer.weight.shape[2] // 2)
    return feature


def attention(sr, teacher_sr, temperature):
    """M of one image, position by position."""
    difference = (sr - teacher_sr).abs().mean(0)
    pooled = torch.tensor(
        [[difference[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(5)] for y in range(3)]
    )
    weights = ((pooled - pooled.mean()) / pooled.std(correction=0) / temperature).exp()
    return 15 * weights / weights.sum()


@pytest.mark.parametrize(('num_layer', 'kernel_size'), [(1, 1), (2, 1), (2, 3), (1, 5)])
def test_regressed_features_by_hand(outputs, num_layer, kernel_size):
    torch.manual_seed(0)
    options = {'loss_weight': 0.5, 'num_layer': num_layer, 'kernel_size': kernel_size}
    loss = build_loss({'type': 'RegressedFeatureLoss', **CHANNELS, **options})
    student, teacher = outputs
    distances = [(regress(loss, n, student.features[n]) - teacher.features[n]).abs().mean() for n in range(2)]
    torch.testing.assert_close(loss(student, teacher, student.sr), 0.5 * (distances[0] + distances[1]) / 2)


@pytest.mark.parametrize('temperature', [1.0, 0.25])
def test_selected_features_by_hand(outputs, temperature):
    torch.manual_seed(0)
    loss = build_loss({'type': 'SelectiveFeatureLoss', **CHANNELS, 'loss_weight': 2, 'temperature': temperature})
    student, teacher = outputs
    total = 0
    for number in range(2):
        regressed = regress(loss, number, student.features[number])
        for i in range(3):
            weights = attention(student.sr[i], teacher.sr[i], temperature)
            total += (weights * (regressed[i] - teacher.features[number][i]).abs()).mean() / 3 / 2
    torch.testing.assert_close(loss(student, teacher, student.sr), 2 * total, rtol=1e-5, atol=0)


def test_attention_has_mean_one_no_unit_and_no_gradient(outputs):
    loss = SelectiveFeatureLoss(**CHANNELS)
    sr, teacher_sr = outputs[0].sr.requires_grad_(), outputs[1].sr
    weights = loss.attention(sr, teacher_sr, (3, 5))
    assert weights.shape == (3, 1, 3, 5) and not weights.requires_grad
    assert weights.mean((1, 2, 3)).tolist() == pytest.approx([1, 1, 1], rel=1e-6)
    torch.testing.assert_close(loss.attention(sr / 255, teacher_sr / 255, (3, 5)), weights, rtol=1e-4, atol=1e-6)
    assert loss.attention(sr, sr, (3, 5)).unique().tolist() == [1]
    even = SelectiveFeatureLoss(**CHANNELS, temperature=1e6).attention(sr, teacher_sr, (3, 5))
    torch.testing.assert_close(even, torch.ones_like(even), rtol=1e-4, atol=0)


@pytest.mark.parametrize('kind', KINDS)
def test_gradient_reaches_student_features_and_regressors_but_no_output(outputs, kind):
    student, teacher = outputs
    inputs = [tensor.requires_grad_() for tensor in (student.sr, *student.features)]
    loss = kind(**CHANNELS)
    loss(student, teacher, student.sr).backward()
    assert inputs[0].grad is None
    assert all(tensor.grad.abs().sum() > 0 for tensor in (*inputs[1:], *loss.parameters()))


def test_parameters_are_those_of_the_method():
    def count(**how):
        loss = RegressedFeatureLoss([64] * 3, [256] * 3, **how)
        return sum(parameter.numel() for parameter in loss.parameters())

    assert count(num_layer=1) == 3 * (64 * 256 + 256)
    assert count(num_layer=2) == 3 * (64 * 256 + 256 + 256 * 256 + 256)
    assert count(num_layer=2, kernel_size=3) == 3 * (9 * 64 * 256 + 256 + 9 * 256 * 256 + 256)


@pytest.mark.parametrize(
    ('kind', 'options', 'text'),
    [(kind, {'num_layer': 3}, 'num_layer must be 1 or 2, not 3') for kind in KINDS]
    + [(kind, {'kernel_size': 2}, 'kernel_size must be odd, not 2') for kind in KINDS]
    + [(SelectiveFeatureLoss, {'temperature': 0}, 'temperature must be positive')],
)
def test_options_that_make_no_sense_are_refused(kind, options, text):
    with pytest.raises(ValueError, match=text):
        kind(**CHANNELS, **options)


def test_outputs_must_be_a_multiple_of_the_features(outputs):
    student, teacher = outputs
    with pytest.raises(ValueError, match='cannot be pooled'):
        SelectiveFeatureLoss(**CHANNELS)(Outputs(student.sr[..., :9], student.features), teacher, student.sr)


def test_output_distillation_by_hand(outputs):
    student, teacher = outputs
    student.sr.requires_grad_()
    loss = build_loss({'type': 'OutputDistillationLoss', 'loss_weight': 0.5})(student, teacher, student.sr)
    assert loss.item() == pytest.approx(0.5 * (student.sr - teacher.sr).double().abs().mean().item(), rel=1e-6)
    loss.backward()
    torch.testing.assert_close(student.sr.grad, 0.5 * (student.sr - teacher.sr).sign() / student.sr.numel())
    with pytest.raises(ValueError, match='the outputs have shapes'):
        OutputDistillationLoss()(student, Outputs(teacher.sr[..., :4]), student.sr)
