"""The spatial affinity loss of FAKD, without a matrix of all pairs of positions."""

from typing import Any

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr_clsd.losses.distillation_loss import DistillationLoss, Outputs, paired_features

# Entries of the affinity that exist at a time: on a CPU they should stay in the cache, a GPU wants more at once.
_BLOCK_BYTES = {'cpu': 2**20, 'cuda': 2**26}
_LEAST_ROWS, _MOST_ROWS = 32, 128
_MOST_ROWS_ON_A_GPU = 1024


@LOSS_REGISTRY.register()
class SpatialAffinityLoss(DistillationLoss):
    """Distance of the affinities of positions in a student's and a teacher's features (FAKD, He et al., ICIP 2020).

    With the columns of a feature F (C x HW) divided by their L2 norms, A = F^T F (HW x HW) for each image::

        L_SA = sum over taps of the mean of |A_S - A_T|

    A factor on a feature leaves it as it is, and the channels of the two may differ in number.

    Args:
        loss_weight: Factor on the sum over taps.
        eps: Added to the norms.
    """

    symbol = 'L_SA'

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-8) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f'eps must not be negative, as {eps!r} is')
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(self, student: Outputs, teacher: Outputs, gt: Tensor) -> Tensor:
        """Return ``loss_weight * L_SA``; outputs and HR images are not looked at."""
        pairs = paired_features(student, teacher)
        return self.loss_weight * torch.stack([affinity_distance(*pair, self.eps) for pair in pairs]).sum()


def affinity_distance(student: Tensor, teacher: Tensor, eps: float = 1e-8) -> Tensor:
    """The mean of |A_S - A_T| over images and pairs of positions.

    Never more of the affinities is held than a block of rows, and the gradient is added up from the same blocks: it is
    known up to the factor that arrives in the backward, and no larger than the feature. Half of the blocks are
    computed, as affinities are symmetric.

    Args:
        student: Feature (N, C, h, w).
        teacher: Feature (N, C', h, w); gets no gradient.
        eps: Added to the norms of the columns.

    Returns:
        A scalar in fp32, or in fp64 if an input is: computed so under autocast and for fp16 and bf16 inputs too.
    """
    double = torch.float64 in (student.dtype, teacher.dtype)
    with torch.autocast(student.device.type, enabled=False):
        columns = [
            _normalised(feature.to(torch.float64 if double else torch.float32), eps)
            for feature in (student, teacher.detach())
        ]
        distance: Tensor = _MeanDifference.apply(*columns)  # pyright: ignore[reportAssignmentType]
        return distance


def _normalised(feature: Tensor, eps: float) -> Tensor:
    """Flatten (N, C, h, w) to columns (N, C, HW) of unit length."""
    columns = feature.flatten(2).contiguous()
    return columns / (torch.linalg.vector_norm(columns, dim=1, keepdim=True) + eps)


class _MeanDifference(torch.autograd.Function):
    """mean |S^T S - T^T T| over images and entries, of columns S (N, C, P) and T (N, C', P); no gradient for T."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        count, _, positions = student.shape
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(student) if wants_gradient else None
        total = torch.zeros((), dtype=torch.float64, device=student.device)
        images, rows = _block(count, positions, student)
        for first in range(0, count, images):
            these = slice(first, first + images)
            total += _add_up(student[these], teacher[these], rows, None if gradient is None else gradient[these])
        entries = count * positions**2
        if gradient is not None:
            ctx.save_for_backward(gradient.mul_(2 / entries))  # each S is on both sides of the product
        return (total / entries).to(student.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, of_mean: Tensor
    ) -> tuple[Tensor | None, None]:
        return (ctx.saved_tensors[0] * of_mean if ctx.needs_input_grad[0] else None), None


def _add_up(student: Tensor, teacher: Tensor, rows: int, gradient: Tensor | None) -> Tensor:
    """Sum |A_S - A_T| of some images, and add half of its gradient for ``student`` to ``gradient``.

    A block has some rows and, of the columns, those on the diagonal (``square``) and all to the right of them
    (``rest``), which stand for their mirror images below the diagonal too.
    """
    positions = student.shape[2]
    total = torch.zeros((), dtype=torch.float64, device=student.device)
    for start in range(0, positions, rows):
        stop = min(start + rows, positions)
        square, rest, both = slice(start, stop), slice(stop, None), slice(start, None)
        block = torch.bmm(teacher[:, :, square].mT, teacher[:, :, both])
        torch.baddbmm(block, student[:, :, square].mT, student[:, :, both], beta=-1, out=block)
        # Row by row: a plain sum in fp32 over all of them would lose digits.
        of_square = torch.linalg.vector_norm(block[:, :, : stop - start], 1, dim=2)
        of_rest = torch.linalg.vector_norm(block[:, :, stop - start :], 1, dim=2)
        total += (of_square + 2 * of_rest).sum(dtype=torch.float64)
        if gradient is not None:
            sign = block.sign_()
            gradient[:, :, square] += torch.bmm(student[:, :, both], sign.mT)
            gradient[:, :, rest] += torch.bmm(student[:, :, square], sign[:, :, stop - start :])
    return total


def _block(count: int, positions: int, like: Tensor) -> tuple[int, int]:
    """How many images and rows of their affinities to take at a time."""
    kind = 'cpu' if like.device.type == 'cpu' else 'cuda'
    entries = _BLOCK_BYTES[kind] // like.element_size()
    most = _MOST_ROWS if kind == 'cpu' else _MOST_ROWS_ON_A_GPU
    rows = min(max(entries // positions, _LEAST_ROWS), most, positions)
    return max(1, min(entries // (rows * positions), count)), rows
