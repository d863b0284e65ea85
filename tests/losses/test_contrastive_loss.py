"""The contrastive ratio: its value against the equations, its invariances, its errors."""

import pytest
import torch
from basicsr.losses import build_loss
from helpers.pair_by_pair import ALL_NEGATIVES, DISTANCES, gradients, make_images, plain_loss
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr_clsd.losses import ContrastiveLoss

every_negatives = pytest.mark.parametrize('negatives', ALL_NEGATIVES, ids='+'.join)
every_distance = pytest.mark.parametrize('distance', DISTANCES)
hypothesis_settings = settings(max_examples=10, deadline=None, derandomize=True)


def constant_images(*values):
    """One-channel 2x2 images, each of one value: their l1 distances are the differences of the values."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)


# values


@every_negatives
@every_distance
@pytest.mark.parametrize('reduction', ['sum', 'mean'])
@pytest.mark.parametrize('count', [2, 5])
def test_loss_and_gradients_are_those_of_the_equations(negatives, distance, reduction, count):
    sr, head_srs = make_images(count)
    options = {'negatives': negatives, 'distance': distance, 'reduction': reduction, 'eps': 1e-3}
    loss = ContrastiveLoss(loss_weight=10, detach_teacher=False, **options)(sr, head_srs)
    expected = 10 * plain_loss(sr, head_srs, **options)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for grad, expected_grad in zip(gradients(loss, sr, head_srs), gradients(expected, sr, head_srs), strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ('negatives', 'expected'),
    [
        # d+ = 1, 2. cross: |0 - 6| and |4 - 1|. intra: |1 - 6| twice. simclr adds |1 - 4| and |6 - 0| to intra.
        (['cross'], 1 / 6 + 2 / 3),
        (['intra'], 1 / 5 + 2 / 5),
        (['cross', 'intra'], 1 / 11 + 2 / 8),
        (['simclr'], 1 / 8 + 2 / 11),
        # |0 - 4| + |1 - 6| + |0 - 6| + |4 - 1| = 18
        (['global'], 1 / 18 + 2 / 18),
    ],
)
def test_two_images_by_hand(negatives, expected):
    sr, head_sr = constant_images(0.0, 4.0), constant_images(1.0, 6.0)
    assert ContrastiveLoss(negatives=negatives, eps=0)(sr, [head_sr]).item() == pytest.approx(expected, rel=1e-6)
    assert ContrastiveLoss(0.5, negatives, reduction='mean', eps=0)(sr, [head_sr] * 3).item() == pytest.approx(
        0.5 * 3 * expected / 2, rel=1e-6
    )


def test_cosine_by_hand():
    # Along x, y and between them: the cosines are 1, 0 and 1 / sqrt(2).
    x, y, between = [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]
    sr = torch.tensor([x, y]).reshape(2, 1, 1, 2)
    head_sr = torch.tensor([between, y]).reshape(2, 1, 1, 2)
    near = 1 - 0.5**0.5
    # image 1: d+ near, negatives 1 (x, y) and near (between, y); image 2: d+ 0
    loss = ContrastiveLoss(distance='cosine', eps=0)(sr, [head_sr])
    assert loss.item() == pytest.approx(near / (1 + near), rel=1e-6)
    assert loss.dtype == torch.float32


def test_eps_is_added_to_the_denominator():
    sr, head_sr = constant_images(0.0, 4.0), constant_images(1.0, 6.0)
    loss = ContrastiveLoss(negatives='cross', eps=1.0)(sr, [head_sr])
    assert loss.item() == pytest.approx(1 / 7 + 2 / 4, rel=1e-6)


@pytest.mark.parametrize('count', [2, 3, 8])
@pytest.mark.parametrize(
    ('negatives', 'pairs'),
    [
        # for all N anchors of a head together; 2 N (N - 1) for the paper's choice
        (('cross', 'intra'), lambda n: 2 * n * (n - 1)),
        (('cross',), lambda n: n * (n - 1)),
        (('intra',), lambda n: n * (n - 1)),
        (('simclr',), lambda n: 2 * n * (n - 1)),
        # one denominator of C(2N, 2) - N pairs, in the ratio of each of the N images
        (('global',), lambda n: n * (n * (2 * n - 1) - n)),
    ],
)
@every_distance
def test_number_of_negative_pairs(count, negatives, pairs, distance):
    # All 2N images are unit vectors along different axes, so that all distances are equal.
    images = torch.eye(2 * count, dtype=torch.float64).reshape(2, count, 1, 1, 2 * count)
    terms = ContrastiveLoss(negatives=negatives, distance=distance, eps=0).measure(images[0], [images[1]])
    pairs_of_an_image = pairs(count) / count
    assert (terms.negative / terms.positive).item() == pytest.approx(pairs_of_an_image)
    assert terms.loss.item() == pytest.approx(count / pairs_of_an_image)


def test_measure_gives_the_mean_distances():
    terms = ContrastiveLoss(10.0).measure(constant_images(0.0, 4.0), [constant_images(1.0, 6.0)] * 2)
    assert terms.positive.item() == pytest.approx((1 + 2) / 2)
    assert terms.negative.item() == pytest.approx((11 + 8) / 2)
    assert terms.loss.item() == pytest.approx(10 * 2 * (1 / 11 + 2 / 8))
    sr, head_srs = make_images()
    terms = ContrastiveLoss().measure(sr, head_srs)
    assert terms.loss.requires_grad
    assert not terms.positive.requires_grad and not terms.negative.requires_grad


def test_is_built_by_name():
    loss = build_loss({'type': 'ContrastiveLoss', 'loss_weight': 1.0, 'negatives': ['cross', 'intra']})
    assert isinstance(loss, ContrastiveLoss)
    sr, head_srs = make_images()
    assert loss(sr, head_srs).item() == pytest.approx(plain_loss(sr, head_srs).item())


# invariances


@every_negatives
@every_distance
@hypothesis_settings
@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_a_common_factor_changes_nothing(negatives, distance, factor, seed):
    sr, head_srs = make_images(seed=seed)
    loss = ContrastiveLoss(negatives=negatives, distance=distance)
    scaled = loss(factor * sr, [factor * head_sr for head_sr in head_srs])
    # Distances of about 0.1 are 1e-4 times the least factor: eps, 1e-7, is up to a thousandth of them.
    torch.testing.assert_close(scaled, loss(sr, head_srs), rtol=2e-3 if factor < 1 else 1e-5, atol=0)
    exact = ContrastiveLoss(negatives=negatives, distance=distance, eps=0)
    scaled = exact(factor * sr, [factor * head_sr for head_sr in head_srs])
    torch.testing.assert_close(scaled, exact(sr, head_srs), rtol=1e-9, atol=0)


@every_negatives
@every_distance
@hypothesis_settings
@given(order=st.permutations(range(5)), seed=st.integers(0, 1000))
def test_the_order_of_the_batch_changes_nothing(negatives, distance, order, seed):
    sr, head_srs = make_images(5, seed=seed)
    loss = ContrastiveLoss(negatives=negatives, distance=distance)
    shuffled = loss(sr[order], [head_sr[order] for head_sr in head_srs])
    torch.testing.assert_close(shuffled, loss(sr, head_srs), rtol=1e-12, atol=0)


@every_negatives
@hypothesis_settings
@given(offset=st.floats(-100, 100), seed=st.integers(0, 1000))
def test_one_constant_added_to_all_images_changes_no_l1(negatives, offset, seed):
    sr, head_srs = make_images(seed=seed)
    loss = ContrastiveLoss(negatives=negatives)
    moved = loss(sr + offset, [head_sr + offset for head_sr in head_srs])
    torch.testing.assert_close(moved, loss(sr, head_srs), rtol=1e-9, atol=0)


@pytest.mark.parametrize('shape', [(1, 1, 1), (3, 4, 7), (5, 9, 2)])
def test_any_shape_and_memory_layout(shape):
    sr, head_srs = make_images(shape=shape)
    loss = ContrastiveLoss()(
        sr.to(memory_format=torch.channels_last), [head.to(memory_format=torch.channels_last) for head in head_srs]
    )
    assert loss.item() == pytest.approx(plain_loss(sr, head_srs).item(), rel=1e-12)


# errors


@pytest.mark.parametrize(
    'negatives', [[], '', 'none', ['cross', 'simclr'], ['global', 'intra'], ['cross', 'cross'], [['cross']], None, 3]
)
def test_unknown_negatives(negatives):
    with pytest.raises(ValueError, match="'cross', 'intra' or both, or 'simclr' or 'global' alone"):
        ContrastiveLoss(negatives=negatives)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'distance': 'l2'}, "distance must be 'l1' or 'cosine', not 'l2'"),
        ({'reduction': 'none'}, "reduction must be 'sum' or 'mean', not 'none'"),
        ({'eps': -1e-7}, 'eps must not be negative'),
    ],
)
def test_unknown_options(option, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss(**option)


def test_a_name_alone_stands_for_a_list_of_one_and_the_order_is_free():
    images = make_images()
    assert torch.equal(ContrastiveLoss(negatives='cross')(*images), ContrastiveLoss(negatives=['cross'])(*images))
    assert torch.equal(ContrastiveLoss(negatives=['intra', 'cross'])(*images), ContrastiveLoss()(*images))


@pytest.mark.parametrize(
    ('sr', 'head_srs', 'message'),
    [
        (torch.rand(1, 3, 4, 4), [torch.rand(1, 3, 4, 4)], 'at least 2 images in a batch, not 1'),
        (torch.rand(2, 3, 4, 4), [], 'at least 1 head'),
        (torch.rand(2, 3, 4, 4), [torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 5)], 'head 2 has the shape'),
        (torch.rand(3, 4, 4), [torch.rand(3, 4, 4)], r'\(N, C, H, W\)'),
    ],
)
def test_unfit_images(sr, head_srs, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss()(sr, head_srs)
