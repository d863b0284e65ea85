"""The spatial affinity loss, computed in blocks, against its direct form and by hand."""

import pytest
import torch
from basicsr.losses import build_loss
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr_clsd.losses import Outputs, SpatialAffinityLoss, spatial_affinity_loss
from basicsr_clsd.losses.spatial_affinity_loss import affinity_distance


def make_features(*sizes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=dtype) for size in sizes]


def affinity(feature, eps=1e-8):
    """All of A at once, (N, HW, HW)."""
    columns = feature.flatten(2)
    columns = columns / (columns.square().sum(1, keepdim=True).sqrt() + eps)
    return torch.einsum('ncp,ncq->npq', columns, columns)


def direct(student, teacher):
    return (affinity(student) - affinity(teacher)).abs().mean()


def value_and_gradient(function, student, teacher):
    student = student.detach().requires_grad_()
    value = function(student, teacher)
    return value.detach(), torch.autograd.grad(value, student)[0]


@pytest.fixture(params=[(2**20, 128), (4 * 8 * 35, 8), (1, 3)], ids=['one block', 'blocks', 'small blocks'])
def blocks(request, monkeypatch):
    """Sizes of the blocks that cut 35 positions in one, five (the last smaller) or twelve, and images apart or not."""
    size, rows = request.param
    monkeypatch.setitem(spatial_affinity_loss._BLOCK_BYTES, 'cpu', size)
    monkeypatch.setattr(spatial_affinity_loss, '_LEAST_ROWS', rows)
    monkeypatch.setattr(spatial_affinity_loss, '_MOST_ROWS', rows)


@pytest.mark.parametrize('channels', [(4, 4), (4, 9), (9, 4)])
def test_value_and_gradient_are_those_of_the_direct_form(blocks, channels):
    student, teacher = make_features((3, channels[0], 5, 7), (3, channels[1], 5, 7))
    value, gradient = value_and_gradient(affinity_distance, student, teacher)
    wanted, wanted_gradient = value_and_gradient(direct, student, teacher)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-10, atol=1e-15)


def test_gradient_is_that_of_finite_differences(blocks):
    student, teacher = make_features((2, 3, 5, 7), (2, 5, 5, 7))
    assert torch.autograd.gradcheck(lambda mine: 7 * affinity_distance(mine, teacher), student.requires_grad_())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('side', [24, 33])
def test_fp32_is_near_fp64_whatever_the_precision_of_the_features(dtype, side):
    student, teacher = make_features((2, 16, side, side), (2, 32, side, side), dtype=dtype)
    wanted, wanted_gradient = value_and_gradient(direct, student.double(), teacher.double())
    student.requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        value = affinity_distance(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert (gradient - wanted_gradient).abs().max() <= tolerance * wanted_gradient.abs().max()


class LargestTensor(TorchDispatchMode):
    """Notes how many entries the largest tensor has that an operation makes."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            self.entries = max(self.entries, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return result


def test_no_affinity_of_a_batch_is_ever_held():
    student, teacher = make_features((3, 8, 48, 48), (3, 8, 48, 48), dtype=torch.float32)
    with LargestTensor() as ours:
        value_and_gradient(affinity_distance, student, teacher)
    with LargestTensor() as plain:
        value_and_gradient(direct, student, teacher)
    assert plain.entries == 3 * 48**4
    assert ours.entries <= 3 * 48**4 / 40


def test_by_hand():
    # Columns of the student along x, y; of the teacher along x, x: affinities 0 and 1 off the diagonal, 1 on it.
    student = torch.tensor([[3.0, 0.0], [0.0, 5.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([2.0, 7.0]).view(1, 1, 1, 2)
    loss = build_loss({'type': 'SpatialAffinityLoss', 'loss_weight': 10})
    images = torch.rand(1, 3, 2, 4)
    mine, its = Outputs(images, [student] * 3), Outputs(images, [teacher] * 3)
    assert loss(mine, its, images).item() == pytest.approx(10 * 3 * 2 / 4, rel=1e-6)


def test_diagonal_of_the_affinity_is_one():
    """With the identity's affinity for a teacher, what is left of |A_S - A_T| is off the diagonal."""
    (student,) = make_features((2, 6, 2, 3))
    teacher = torch.eye(6, dtype=torch.float64).view(1, 6, 2, 3).expand(2, -1, -1, -1)
    off_diagonal = affinity(student) * (1 - torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(affinity_distance(student, teacher), off_diagonal.abs().mean(), rtol=1e-6, atol=0)


def test_equal_and_rescaled_features_have_no_distance():
    (student,) = make_features((2, 4, 3, 5))
    scale = torch.rand(2, 1, 3, 5, dtype=torch.float64) + 0.5
    for teacher in (student, -3 * student, scale * student, torch.cat([student, student], 1)):
        assert affinity_distance(student, teacher).item() == pytest.approx(0, abs=1e-7)
    assert affinity_distance(student, student + 1).item() > 1e-3


def test_teacher_gets_no_gradient_and_the_loss_is_a_mean_over_images():
    student, teacher = make_features((4, 4, 3, 5), (4, 6, 3, 5))
    student.requires_grad_()
    teacher.requires_grad_()
    value = affinity_distance(student, teacher)
    value.backward()
    assert teacher.grad is None
    parts = [affinity_distance(student[i : i + 2], teacher[i : i + 2]).item() for i in (0, 2)]
    assert value.item() == pytest.approx(sum(parts) / 2, rel=1e-12)


def test_student_without_gradient_is_measured_too():
    student, teacher = make_features((2, 4, 3, 5), (2, 6, 3, 5))
    value = affinity_distance(student, teacher)
    assert not value.requires_grad
    torch.testing.assert_close(value, direct(student, teacher), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ('mine', 'its', 'text'),
    [
        ([], [], 'one at least'),
        ([(1, 2, 3, 3)], [], 'as many taps'),
        ([(1, 2, 3, 3)] * 2, [(1, 2, 3, 3), (1, 2, 3, 4)], r'at tap 2 differ in size: \(1, 2, 3, 3\) of the student'),
    ],
)
def test_features_that_cannot_be_compared_are_refused(mine, its, text):
    images = torch.rand(1, 3, 6, 6)
    student, teacher = (Outputs(images, make_features(*sizes)) for sizes in (mine, its))
    with pytest.raises(ValueError, match=text):
        SpatialAffinityLoss()(student, teacher, images)


def test_eps_must_not_be_negative():
    with pytest.raises(ValueError, match='eps'):
        SpatialAffinityLoss(eps=-1e-8)
