"""Hints between features, and the divergence of Laplace laws, against their formulas."""

import math

import pytest
import torch
from torch import nn

from basicsr_clsd.losses import HintLoss, LaplaceKLLoss

CHANNELS, HEADS = 3, 3


def features(seed, count=HEADS, channels=CHANNELS):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, 4, 5, generator=generator, requires_grad=True) for _ in range(count)]


def hint(channels=CHANNELS, **options):
    torch.manual_seed(0)
    return HintLoss([CHANNELS] * HEADS, channels, **options)


@pytest.mark.parametrize('source', ['student', 'next'])
@pytest.mark.parametrize(('distance', 'power'), [('l1', 1), ('l2', 2)])
@pytest.mark.parametrize('skip', [[], [3], [1, 2]])
def test_value_is_that_of_the_formula(source, distance, power, skip):
    loss = hint(loss_weight=0.5, distance=distance, source=source, skip=skip)
    heads, (target,) = features(1), features(2, count=1)
    kept = [j for j in range(HEADS) if j + 1 not in skip]
    sources = [heads[j + 1] if source == 'next' and j + 1 < HEADS else target for j in range(HEADS)]
    wanted = 0.0
    for adapter, j in zip(loss.adapters, kept, strict=True):
        adapted = torch.einsum('oc,nchw->nohw', adapter.weight[:, :, 0, 0], heads[j]) + adapter.bias.view(-1, 1, 1)
        wanted += ((adapted - sources[j]).abs() ** power).mean().item() / len(kept)
    assert loss(heads, target).item() == pytest.approx(0.5 * wanted, rel=1e-5)


@pytest.mark.parametrize('source', ['student', 'next'])
def test_what_a_head_learns_from_has_no_gradient(source):
    heads, (target,) = features(1), features(2, count=1)
    hint(source=source, skip=[2])(heads, target).backward()
    assert target.grad is None
    assert heads[0].grad is not None and heads[0].grad.any() and heads[2].grad is not None
    assert heads[1].grad is None


def test_equal_features_and_no_adapter_give_0():
    loss = hint(adapter='none')
    assert not list(loss.parameters())
    (feature,) = features(1, count=1)
    assert loss([feature] * HEADS, feature).item() == 0
    identity = hint()
    for adapter in identity.adapters:
        nn.init.dirac_(adapter.weight)
        nn.init.zeros_(adapter.bias)
    assert identity([feature] * HEADS, feature).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ('channels', 'skip', 'count'), [(64, [], 12_480), (64, [2], 8_320), (32, [], 3 * (64 * 32 + 32))]
)
def test_number_of_parameters(channels, skip, count):
    loss = HintLoss([64] * HEADS, channels, skip=skip)
    assert sum(value.numel() for value in loss.parameters()) == count


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        ({'distance': 'l3'}, "distance must be l1 or l2, not 'l3'"),
        ({'adapter': 'linear'}, "adapter must be conv or none, not 'linear'"),
        ({'source': 'teacher'}, "source must be student or next, not 'teacher'"),
        ({'skip': [4]}, 'skip must be a list of numbers from 1 to 3, the number of heads, not [4]'),
        ({'skip': 1}, 'skip must be a list of numbers from 1 to 3, the number of heads, not 1'),
        ({'skip': [1, 2, 3]}, 'skip leaves out all 3 heads'),
        ({'adapter': 'none', 'channels': 8}, 'adapter: none needs features of as many channels; head 1 has 3, what'),
    ],
)
def test_wrong_options_are_told(options, told):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        hint(**options)
    assert str(caught.value).startswith(told)


def test_laplace_divergence_is_that_of_the_two_laws():
    """By numerical integration of p log(p / q)."""
    scale, mean, other = 0.7, 0.4, -0.9
    x = torch.linspace(-30, 30, 2_000_001, dtype=torch.float64)
    log_p, log_q = (-(x - centre).abs() / scale - math.log(2 * scale) for centre in (mean, other))
    wanted = torch.trapezoid(log_p.exp() * (log_p - log_q), x).item()
    pair = torch.tensor([mean], dtype=torch.float64), torch.tensor([other], dtype=torch.float64)
    assert LaplaceKLLoss(scale=scale)(*pair).item() == pytest.approx(scale * wanted, rel=1e-6)
    assert LaplaceKLLoss(3, scale)(*pair).item() == pytest.approx(3 * scale * wanted, rel=1e-6)


def test_laplace_divergence_lies_between_l1_and_the_square():
    first, second = (torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    distance = (first - second).abs()
    assert LaplaceKLLoss(scale=1e-7)(first, second).item() == pytest.approx(distance.mean().item(), rel=1e-5)
    square = distance.square().mean().item() / 2
    assert LaplaceKLLoss(scale=100.0)(100 * first, 100 * second).item() < 100 * distance.mean().item()
    double = LaplaceKLLoss(scale=1e3)(first.double(), second.double()).item()
    assert 1e3 * double == pytest.approx(square, rel=1e-3)


def test_laplace_divergence_is_convex_and_flat_where_images_are_equal():
    points = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    loss = LaplaceKLLoss(scale=0.5)
    values = torch.stack([loss(point, torch.zeros_like(point)) for point in points])
    (slopes,) = torch.autograd.grad(values.sum(), points)
    assert (slopes.diff() > 0).all()
    assert slopes[30].abs() < 1e-12 and values[30].item() == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match=r'scale must be positive, not 0'):
        LaplaceKLLoss(scale=0)
