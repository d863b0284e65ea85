"""The contrastive ratio L_CS of CLSD: a head's output, near the student's and far from those of other images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_NEGATIVES = (('cross',), ('intra',), ('cross', 'intra'), ('intra', 'cross'), ('simclr',), ('global',))
_REDUCTIONS = ('sum', 'mean')
_BATCH_DIMS = 4

# On a CPU the l1 distances are computed in pieces of the images that stay in its cache. A piece is short for accuracy
# too, as torch's CPU kernels add up its columns in plain fp32; those of a GPU add them up in a tree.
_PIECE_BYTES = 8 * 2**20
_PIECE_COLUMNS = 4096
ALL = slice(None)
_DEVICE_BYTES = 512 * 2**20  # of 2N x 2N x columns for every head, which the backward holds


class ContrastiveTerms(NamedTuple):
    """What :meth:`ContrastiveLoss.measure` returns: scalars, ``loss`` alone with a gradient."""

    loss: Tensor  # loss_weight * sum_j L_CS^j
    positive: Tensor  # mean over heads and images of the distance to the positive
    negative: Tensor  # mean over heads and images of the summed distances to the negatives


@LOSS_REGISTRY.register()
class ContrastiveLoss(nn.Module):
    """The contrastive term of CLSD (Moon et al., 2023, doi 10.5909/JBE.2023.28.6.709, Eq. 5 and 6).

    For head j, with SR_i the student's output and SR_i^j the head's output for image i of a batch of N::

        L_CS^j = sum_i d(SR_i, SR_i^j) / (sum of the distances to the negatives of i + eps)

    A ratio of distances: multiplying all images by one factor leaves it as it is, up to ``eps``.

    Args:
        loss_weight: Factor of the sum over heads, the paper's beta.
        negatives: What the denominator sums for image i, over all k != i. ``cross``: d(SR_i, SR_k^j). ``intra``:
            d(SR_i^j, SR_k^j). One or both (the paper: both), or one of these alone: ``simclr``: d(SR_i^j, SR_k) +
            d(SR_i^j, SR_k^j); ``global``: all unordered pairs of the 2N images but the N positive ones, one
            denominator for all i. A single name may be given without a list.
        distance: ``l1``, the mean of the absolute differences, or ``cosine``, 1 - cos of the flattened images.
        reduction: ``sum`` over i, as printed, or ``mean``.
        detach_teacher: No gradient reaches SR, wherever it appears.
        detach_negatives: No gradient reaches an image through its part as a negative. An anchor keeps its own:
            ``cross`` then gives none unless SR is attached, ``intra`` only one to SR_i^j; ``global`` has no anchor,
            and gives none.
        eps: Added to the denominator; in units of ``distance``.

    Raises:
        ValueError: An option is none of its choices, or ``eps`` is negative.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        negatives: str | Sequence[str] = ('cross', 'intra'),
        distance: str = 'l1',
        reduction: str = 'sum',
        detach_teacher: bool = True,
        detach_negatives: bool = False,
        eps: float = 1e-7,
    ) -> None:
        super().__init__()
        names = [negatives] if isinstance(negatives, str) else negatives
        if not isinstance(names, Sequence) or tuple(names) not in _NEGATIVES:
            raise ValueError(
                f"negatives must be 'cross', 'intra' or both, or 'simclr' or 'global' alone, not {negatives!r}"
            )
        if distance not in _DISTANCES:
            raise ValueError(f"distance must be 'l1' or 'cosine', not {distance!r}")
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be 'sum' or 'mean', not {reduction!r}")
        if eps < 0:
            raise ValueError(f'eps must not be negative, as {eps!r} is')
        self.loss_weight = loss_weight
        self.negatives = tuple(names)
        self.distance = distance
        self.reduction = reduction
        self.detach_teacher = detach_teacher
        self.detach_negatives = detach_negatives
        self.eps = eps

    def forward(self, sr: Tensor, head_srs: Sequence[Tensor]) -> Tensor:
        """Return ``loss_weight * sum_j L_CS^j``; arguments and errors as for :meth:`measure`."""
        return self.measure(sr, head_srs).loss

    def measure(self, sr: Tensor, head_srs: Sequence[Tensor], own: slice = ALL) -> ContrastiveTerms:
        """Compute the loss and, for the log, the distances it is made of.

        Args:
            sr: The student's output, (N, C, H, W) with N >= 2, in any range of values.
            head_srs: The outputs of the heads, each of the shape and range of ``sr``.
            own: The images, from one to another, whose gradient is asked for; that of the others may be left at 0. Of
                a batch that several processes share, each needs its own part.

        Returns:
            Scalars in fp32, or in fp64 if an input is: computed so under autocast and for fp16 and bf16 inputs too.

        Raises:
            ValueError: There is no head, no second image, or a head's shape is not that of ``sr``.
        """
        _check_images(sr, head_srs)
        double = any(images.dtype == torch.float64 for images in (sr, *head_srs))
        dtype = torch.float64 if double else torch.float32
        with torch.autocast(sr.device.type, enabled=False):
            heads = torch.stack([head_sr.flatten(1).to(dtype) for head_sr in head_srs])
            student = (sr.detach() if self.detach_teacher else sr).flatten(1).to(dtype).expand_as(heads)
            positive, negative = (found.to(dtype) for found in self._distances(student, heads, own))
            ratio = positive / (negative + self.eps)
            loss = ratio.sum() if self.reduction == 'sum' else ratio.mean(1).sum()
            return ContrastiveTerms(self.loss_weight * loss, positive.detach().mean(), negative.detach().mean())

    def _distances(self, student: Tensor, heads: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        """Return the distance to the positive and the summed distances to the negatives of each image, (T, N) both.

        Args:
            student: Flattened images (T, N, D), the same for every head.
            heads: The heads' images, (T, N, D).
            own: See :meth:`measure`.
        """
        count = heads.shape[1]
        positive, distances = self._between_images(student, heads, own)
        if 'global' in self.negatives:
            pairs = distances.sum((1, 2), keepdim=True)[..., 0] / 2  # each pair is there from both of its ends
            return positive, (pairs.detach() if self.detach_negatives else pairs).expand_as(positive)
        if self.detach_negatives:
            from_student = self._between_images(student, heads.detach(), own)[1][:, :count, count:]
            to_student = self._between_images(heads, student.detach(), own)[1][:, :count, count:]
            between_heads = self._between_images(heads, heads.detach(), own)[1][:, :count, count:]
        else:
            from_student, to_student = distances[:, :count, count:], distances[:, count:, :count]
            between_heads = distances[:, count:, count:]
        chosen = {
            'cross': from_student,
            'intra': between_heads,
            'simclr': to_student + between_heads,
        }
        return positive, torch.stack([chosen[name] for name in self.negatives]).sum((0, 3))

    def _between_images(self, first: Tensor, second: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        """Return d(first_i, second_i), (T, N), and all distances, (T, 2N, 2N), with 0 between versions of one image."""
        positive, distances = _DISTANCES[self.distance](first, second, own)
        same = torch.eye(first.shape[1], dtype=torch.bool, device=first.device).repeat(2, 2)
        return positive, distances.masked_fill(same, 0)


class _MeanL1OnCPU(torch.autograd.Function):
    """Mean absolute differences of two batches of flattened images (N, D), without anything of N x N x D.

    Returns d(first_i, second_i), (N,), and the distances among all images, first's before second's, (2N, 2N).
    The forward of torch.pdist is several times faster on a CPU than that of torch.cdist, and the backward of cdist
    than that of pdist, which has no way to leave out a batch that needs no gradient: this takes one of each.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        ctx.own = own
        size, count = first.shape[1], 2 * len(first)
        paired, pairs = [], []
        for columns in pieces(first):
            rows = torch.cat((first[:, columns], second[:, columns]))
            pairs.append(F.pdist(rows, p=1))
            paired.append((rows[: len(first)] - rows[len(first) :]).abs_().sum(1))
        above, below = torch.triu_indices(count, count, 1, device=first.device)
        distances = first.new_zeros(count, count)
        distances[above, below] = torch.stack(pairs).sum(0) / size
        return torch.stack(paired).sum(0) / size, distances + distances.T

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, of_paired: Tensor, of_distances: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        first, second = ctx.saved_tensors
        size, count = first.shape[1], len(first)
        of_distances = ((of_distances + of_distances.T) / size).contiguous()  # a pair's distance is there twice
        of_paired = of_paired[:, None] / size
        grads = [torch.zeros_like(first) if needed else None for needed in ctx.needs_input_grad[:2]]
        own = range(count)[ctx.own]
        for columns in pieces(first):
            rows = torch.cat((first[:, columns], second[:, columns]))
            sign = (rows[:count] - rows[count:])[ctx.own].sign_()
            for grad, start, side in ((grads[0], 0, 1), (grads[1], count, -1)):
                if grad is not None:
                    these = slice(start + own.start, start + own.stop)
                    weights = of_distances[these]
                    # The last argument is for the distances, which the gradient of an l1 norm has no use for.
                    grad[ctx.own, columns] = torch.ops.aten._cdist_backward(weights, rows[these], rows, 1.0, weights)
                    grad[ctx.own, columns].addcmul_(of_paired[ctx.own], sign, value=side)
        return grads[0], grads[1], None


def pieces(images: Tensor) -> list[slice]:
    """Cut the columns of flattened images, (N, D)."""
    count, size = images.shape
    columns = max(1, min(_PIECE_BYTES // (2 * count**2 * images.element_size()), _PIECE_COLUMNS))
    return [slice(start, start + columns) for start in range(0, size, columns)]


class _MeanL1OnDevice(torch.autograd.Function):
    """What :class:`_MeanL1OnCPU` computes, for all heads at once: few operators, each with much to do.

    Images are (T, N, D); the distances come as (T, N) and (T, 2N, 2N). The columns are cut by the memory of the
    backward alone.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        rows = torch.cat((first, second), 1)
        ctx.save_for_backward(rows)
        ctx.own = own
        distances = torch.cdist(rows, rows, p=1) / rows.shape[2]
        count = first.shape[1]
        return distances[:, :count, count:].diagonal(dim1=1, dim2=2).clone(), distances

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, of_paired: Tensor, of_distances: Tensor
    ) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        heads, both, size = rows.shape
        count = both // 2
        weights = (of_distances + of_distances.mT) / size  # a pair's distance is there twice
        paired = torch.diag_embed(of_paired / size)
        weights[:, :count, count:] += paired
        weights[:, count:, :count] += paired
        own = range(count)[ctx.own]
        starts = [start for start, needed in zip((0, count), ctx.needs_input_grad[:2], strict=True) if needed]
        these = [slice(start + own.start, start + own.stop) for start in starts]
        weights = torch.cat([weights[:, part] for part in these], 1)
        columns = max(1, _DEVICE_BYTES // (heads * weights.shape[1] * both * rows.element_size()))
        # The last argument is for the distances, which the gradient of an l1 norm has no use for.
        grad = torch.cat(
            [
                torch.ops.aten._cdist_backward(
                    weights, torch.cat([piece[:, part] for part in these], 1), piece.contiguous(), 1.0, weights
                )
                for piece in rows.split(columns, 2)
            ],
            2,
        )
        found = iter(F.pad(part, (0, 0, own.start, count - own.stop)) for part in grad.split(len(own), 1))
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:2]), None


def _mean_l1(first: Tensor, second: Tensor, own: slice) -> tuple[Tensor, Tensor]:
    """The l1 distances of images (T, N, D): head by head in pieces for a CPU's cache, at once on other devices."""
    if first.device.type != 'cpu':
        found: tuple[Tensor, Tensor] = _MeanL1OnDevice.apply(first, second, own)  # pyright: ignore[reportAssignmentType]
        return found
    distances = [_MeanL1OnCPU.apply(*pair, own) for pair in zip(first, second, strict=True)]
    paired, among = (torch.stack(parts) for parts in zip(*distances, strict=True))
    return paired, among


def _cosine(first: Tensor, second: Tensor, own: slice) -> tuple[Tensor, Tensor]:
    """1 - cos, with the interface of _mean_l1.

    In fp64: similar images have a cosine so near 1 that 1 - cos would keep few digits of an fp32 one.
    """
    first, second = F.normalize(first.double(), dim=2), F.normalize(second.double(), dim=2)
    rows = torch.cat((first, second), 1)
    return 1 - (first * second).sum(2), 1 - rows @ rows.mT


_DISTANCES = {'l1': _mean_l1, 'cosine': _cosine}


def _check_images(sr: Tensor, head_srs: Sequence[Tensor]) -> None:
    if sr.ndim != _BATCH_DIMS:
        raise ValueError(f'sr must be a batch of images, (N, C, H, W), not of shape {tuple(sr.shape)}')
    if len(sr) < 2:  # noqa: PLR2004  (an image and another one)
        raise ValueError(f'a contrastive loss needs at least 2 images in a batch, not {len(sr)}')
    if len(head_srs) == 0:
        raise ValueError('a contrastive loss needs the output of at least 1 head')
    for index, head_sr in enumerate(head_srs, 1):
        if head_sr.shape != sr.shape:
            raise ValueError(f'head {index} has the shape {tuple(head_sr.shape)}, but sr {tuple(sr.shape)}')
