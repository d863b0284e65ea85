"""Which images the contrastive ratio pulls, and in what precision."""

import pytest
import torch
from helpers.pair_by_pair import ALL_NEGATIVES, DISTANCES, gradients, make_images, plain_loss, sum_to_negatives

from basicsr_clsd.losses import ContrastiveLoss, contrastive_loss

every_negatives = pytest.mark.parametrize('negatives', ALL_NEGATIVES, ids='+'.join)
every_distance = pytest.mark.parametrize('distance', DISTANCES)


@every_negatives
@every_distance
@pytest.mark.parametrize('detach_teacher', [True, False])
def test_gradcheck(negatives, distance, detach_teacher):
    sr, head_srs = make_images(3, heads=2, shape=(1, 2, 3))
    loss = ContrastiveLoss(negatives=negatives, distance=distance, detach_teacher=detach_teacher)
    images = (sr.detach() if detach_teacher else sr, *head_srs)
    assert torch.autograd.gradcheck(lambda sr, *head_srs: loss(sr, head_srs), images)


@every_negatives
@every_distance
def test_a_detached_teacher_gets_no_gradient_and_the_heads_the_same(negatives, distance):
    sr, head_srs = make_images()
    of_sr, *of_heads = gradients(ContrastiveLoss(negatives=negatives, distance=distance)(sr, head_srs), sr, head_srs)
    assert not of_sr.any()
    attached = ContrastiveLoss(negatives=negatives, distance=distance, detach_teacher=False)(sr, head_srs)
    of_sr, *of_heads_attached = gradients(attached, sr, head_srs)
    assert of_sr.any()
    for grad, expected in zip(of_heads, of_heads_attached, strict=True):
        assert grad.any()
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-15)


@every_negatives
@every_distance
@pytest.mark.parametrize('detach_teacher', [True, False])
def test_detached_negatives(negatives, distance, detach_teacher):
    """The gradient is that of the equations with the negatives taken from constant copies of the images."""
    sr, head_srs = make_images()
    loss = ContrastiveLoss(
        negatives=negatives, distance=distance, detach_teacher=detach_teacher, detach_negatives=True
    )(sr, head_srs)
    d = DISTANCES[distance]
    student = sr.detach() if detach_teacher else sr
    expected = 0
    for head in head_srs:
        still, still_head = sr.detach(), head.detach()
        for i in range(len(sr)):
            other = [k for k in range(len(sr)) if k != i]
            negative = {
                ('cross',): sum(d(student[i], still_head[k]) for k in other),
                ('intra',): sum(d(head[i], still_head[k]) for k in other),
                ('cross', 'intra'): sum(d(student[i], still_head[k]) + d(head[i], still_head[k]) for k in other),
                ('simclr',): sum(d(head[i], still[k]) + d(head[i], still_head[k]) for k in other),
                ('global',): sum_to_negatives(i, still, still_head, ('global',), d),
            }[negatives]
            expected = expected + d(student[i], head[i]) / (negative + 1e-7)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert loss.item() == pytest.approx(plain_loss(sr, head_srs, negatives, distance).item())
    for grad, expected_grad in zip(gradients(loss, sr, head_srs), gradients(expected, sr, head_srs), strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-10, atol=1e-13)


def test_coincident_images_give_a_finite_gradient_without_a_pull():
    """Where two images are the same, |x| has no slope: the subgradient is 0, as torch has it."""
    sr, _ = make_images(3)
    head_sr = sr.detach().clone().requires_grad_()
    loss = ContrastiveLoss()(sr, [head_sr])
    assert loss.item() == 0
    assert not gradients(loss, sr, [head_sr])[1].any()
    same = torch.ones(3, 1, 4, 4, requires_grad=True)
    loss = ContrastiveLoss(detach_teacher=False)(same, [same.detach().clone().requires_grad_()])
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, same)[0].any()


# precision and pieces


@every_distance
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_fp32(distance, dtype):
    sr, head_srs = make_images(dtype=torch.float32)
    halves = [head_sr.detach().to(dtype).requires_grad_() for head_sr in head_srs]
    half_sr = sr.detach().to(dtype)
    loss = ContrastiveLoss(distance=distance)(half_sr, halves)
    assert loss.dtype == torch.float32
    expected = ContrastiveLoss(distance=distance)(half_sr.float(), [half.float() for half in halves])
    assert torch.equal(loss, expected)
    assert all(grad.dtype == dtype for grad in torch.autograd.grad(loss, halves))
    large = [(10_000 * half).detach() for half in halves]  # the sums of their distances would overflow fp16
    assert ContrastiveLoss(distance=distance)(10_000 * half_sr, large).isfinite()


@every_distance
def test_autocast_changes_nothing(distance):
    sr, head_srs = make_images(dtype=torch.float32)
    expected = ContrastiveLoss(distance=distance)(sr, head_srs)
    with torch.autocast('cpu', torch.bfloat16):
        loss = ContrastiveLoss(distance=distance)(sr, head_srs)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    for grad, expected_grad in zip(gradients(loss, sr, head_srs), gradients(expected, sr, head_srs), strict=True):
        assert torch.equal(grad, expected_grad)


@every_distance
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_result_has_the_precision_of_the_inputs(distance, dtype):
    terms = ContrastiveLoss(distance=distance).measure(*make_images(dtype=dtype))
    assert all(term.dtype == dtype and term.ndim == 0 for term in terms)


@every_negatives
@pytest.mark.parametrize('columns', [1, 7, 64])
def test_the_size_of_the_pieces_changes_nothing(monkeypatch, negatives, columns):
    sr, head_srs = make_images(4, heads=2, shape=(3, 8, 9), dtype=torch.float32)
    loss = ContrastiveLoss(negatives=negatives, detach_teacher=False)
    whole = loss(sr, head_srs)
    whole_grads = gradients(whole, sr, head_srs)
    monkeypatch.setattr(contrastive_loss, '_PIECE_BYTES', columns * 2 * 4 * 4 * 4)
    assert len(contrastive_loss.pieces(sr.flatten(1))) == -(-3 * 8 * 9 // columns)
    pieces = loss(sr, head_srs)
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=0)
    for grad, expected in zip(gradients(pieces, sr, head_srs), whole_grads, strict=True):
        assert (grad - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize(('count', 'size'), [(16, 96), (2, 192)])
def test_fp32_agrees_with_fp64_at_the_size_of_training(count, size):
    sr, head_srs = make_images(count, heads=1, shape=(3, size, size), dtype=torch.float32)
    doubles = [head_sr.detach().double().requires_grad_() for head_sr in head_srs]
    loss, expected = ContrastiveLoss()(sr, head_srs), plain_loss(sr.detach().double().unbind(), [doubles[0].unbind()])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (grad,), (expected_grad,) = torch.autograd.grad(loss, head_srs), torch.autograd.grad(expected, doubles)
    assert (grad - expected_grad).abs().max() <= 1e-6 * expected_grad.abs().max()


def test_the_cosine_of_near_images_keeps_its_digits():
    sr, head_srs = make_images(3, shape=(3, 32, 32), dtype=torch.float32, noise=0.003)
    expected = plain_loss(sr.double(), [head_sr.double() for head_sr in head_srs], distance='cosine')
    assert ContrastiveLoss(distance='cosine')(sr, head_srs).item() == pytest.approx(expected.item(), rel=1e-6)


@every_negatives
@pytest.mark.parametrize('detach_teacher', [True, False])
@pytest.mark.parametrize('detach_negatives', [True, False])
@pytest.mark.parametrize('columns', [1, 1000])
def test_all_heads_at_once_give_what_they_give_one_by_one(
    monkeypatch, negatives, detach_teacher, detach_negatives, columns
):
    sr, head_srs = make_images()
    loss = ContrastiveLoss(
        negatives=negatives, detach_teacher=detach_teacher, detach_negatives=detach_negatives, loss_weight=10
    )
    one_by_one = loss(sr, head_srs)
    monkeypatch.setitem(contrastive_loss._DISTANCES, 'l1', contrastive_loss._MeanL1OnDevice.apply)
    monkeypatch.setattr(contrastive_loss, '_DEVICE_BYTES', columns * 3 * 8 * 8 * 8)
    at_once = loss(sr, head_srs)
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-12, atol=0)
    for grad, expected in zip(gradients(at_once, sr, head_srs), gradients(one_by_one, sr, head_srs), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize('on_device', [False, True])
def test_fp32_gradients_agree_with_fp64_at_the_size_of_training(monkeypatch, on_device):
    if on_device:
        monkeypatch.setitem(contrastive_loss._DISTANCES, 'l1', contrastive_loss._MeanL1OnDevice.apply)
    sr, head_srs = make_images(16, shape=(3, 48, 48), dtype=torch.float32)
    doubles = [image.detach().double().requires_grad_() for image in (sr, *head_srs)]
    loss, expected = ContrastiveLoss()(sr, head_srs), plain_loss(doubles[0].detach(), doubles[1:])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    pairs = zip(gradients(loss, sr, head_srs), gradients(expected, doubles[0], doubles[1:]), strict=True)
    for grad, exact in pairs:
        assert (grad - exact).abs().max() <= 1e-5 * exact.abs().max()


@every_negatives
@pytest.mark.parametrize('detach_negatives', [False, True])
@pytest.mark.parametrize('on_device', [False, True])
def test_own_images_have_their_whole_gradient_and_the_rest_costs_nothing(
    monkeypatch, negatives, detach_negatives, on_device
):
    if on_device:
        monkeypatch.setitem(contrastive_loss._DISTANCES, 'l1', contrastive_loss._MeanL1OnDevice.apply)
    sr, head_srs = make_images(5)
    loss = ContrastiveLoss(negatives=negatives, detach_teacher=False, detach_negatives=detach_negatives)
    whole = gradients(loss(sr, head_srs), sr, head_srs)
    for own in (slice(0, 2), slice(1, 3), slice(3, 5)):
        part = loss.measure(sr, head_srs, own)
        assert torch.equal(part.loss, loss(sr, head_srs))
        for grad, expected in zip(gradients(part.loss, sr, head_srs), whole, strict=True):
            torch.testing.assert_close(grad[own], expected[own], rtol=1e-12, atol=1e-15)
            assert not grad[: own.start].any() and not grad[own.stop :].any()
