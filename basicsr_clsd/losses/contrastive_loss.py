"""The contrastive ratio L_CS of CLSD: a head's output, near the student's and far from those of other images."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_NEGATIVES = (('cross',), ('intra',), ('cross', 'intra'), ('intra', 'cross'), ('simclr',), ('global',))
_REDUCTIONS = ('sum', 'mean')
_BATCH_DIMS = 4

# On CUDA the backward of the l1 distances holds N x 2N x columns, so images go through them in pieces of so many
# columns. A piece is short for accuracy too: torch's kernels add up its columns in plain fp32.
_PIECE_BYTES = 8 * 2**20
_PIECE_COLUMNS = 4096


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
        self._metric = _DISTANCES[distance]
        self.reduction = reduction
        self.detach_teacher = detach_teacher
        self.detach_negatives = detach_negatives
        self.eps = eps

    def forward(self, sr: Tensor, head_srs: Sequence[Tensor]) -> Tensor:
        """Return ``loss_weight * sum_j L_CS^j``; arguments and errors as for :meth:`measure`."""
        return self.measure(sr, head_srs).loss

    def measure(self, sr: Tensor, head_srs: Sequence[Tensor]) -> ContrastiveTerms:
        """Compute the loss and, for the log, the distances it is made of.

        Args:
            sr: The student's output, (N, C, H, W) with N >= 2, in any range of values.
            head_srs: The outputs of the heads, each of the shape and range of ``sr``.

        Returns:
            Scalars in fp32, or in fp64 if an input is: computed so under autocast and for fp16 and bf16 inputs too.

        Raises:
            ValueError: There is no head, no second image, or a head's shape is not that of ``sr``.
        """
        _check_images(sr, head_srs)
        double = any(images.dtype == torch.float64 for images in (sr, *head_srs))
        dtype = torch.float64 if double else torch.float32
        with torch.autocast(sr.device.type, enabled=False):
            student = self._metric.pieces(sr.detach() if self.detach_teacher else sr, dtype)
            heads = [self._metric.pieces(head_sr, dtype) for head_sr in head_srs]
            unit = self._metric.unit(sr)
            # One row per head; a distance is the sum of those between the pieces.
            positive = torch.stack([_total(self._metric.paired, student, head) for head in heads]).to(dtype) / unit
            negative = torch.stack([_total(self._to_negatives, student, head) for head in heads]).to(dtype) / unit
            ratio = positive / (negative + self.eps)
            loss = ratio.sum() if self.reduction == 'sum' else ratio.mean(1).sum()
            return ContrastiveTerms(self.loss_weight * loss, positive.detach().mean(), negative.detach().mean())

    def _to_negatives(self, student: Tensor, head: Tensor) -> Tensor:
        """Return the summed distances to the negatives of each image, (N,)."""
        count = len(head)
        if 'global' in self.negatives:
            pairs = self._between_images(student, head).sum() / 2  # each pair is there from both of its ends
            return (pairs.detach() if self.detach_negatives else pairs).expand(count)
        if self.detach_negatives:
            from_student = self._between_images(student, head.detach())[:count, count:]
            to_student = self._between_images(head, student.detach())[:count, count:]
            between_heads = self._between_images(head, head.detach())[:count, count:]
        else:
            distances = self._between_images(student, head)
            from_student, to_student = distances[:count, count:], distances[count:, :count]
            between_heads = distances[count:, count:]
        chosen = {
            'cross': from_student,
            'intra': between_heads,
            'simclr': to_student + between_heads,
        }
        return torch.stack([chosen[name] for name in self.negatives]).sum((0, 2))

    def _between_images(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances among the rows of both batches, (2N, 2N), with 0 between two versions of the same image."""
        same = torch.eye(len(first), dtype=torch.bool, device=first.device).repeat(2, 2)
        return self._metric.matrix(first, second).masked_fill(same, 0)


class _MeanL1:
    """Mean absolute difference."""

    @staticmethod
    def pieces(images: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Flatten images to (N, D) and cut them along D."""
        flat = images.flatten(1).to(dtype)
        columns = _PIECE_BYTES // (2 * flat.shape[0] ** 2 * flat.element_size())
        # The backward of one split is one concatenation; that of slices would fill a whole zero tensor for each.
        return flat.split(max(1, min(columns, _PIECE_COLUMNS)), dim=1)

    @staticmethod
    def unit(images: Tensor) -> int:
        """Return what a sum over the pieces is divided by: the number of values in an image."""
        return images[0].numel()

    @staticmethod
    def paired(first: Tensor, second: Tensor) -> Tensor:
        """d(first_i, second_i), (N,)."""
        return torch.cdist(first[:, None], second[:, None], p=1).flatten()

    @staticmethod
    def matrix(first: Tensor, second: Tensor) -> Tensor:
        """Distances among the rows of both, first's before second's, (2N, 2N)."""
        return _L1Distances.apply(first, second)


class _L1Distances(torch.autograd.Function):
    """Sums of absolute differences among the rows of two batches, without anything of N x N x D.

    The forward of torch.pdist is several times faster on a CPU than that of torch.cdist, and the backward of cdist
    than that of pdist, which has no way to leave out the gradient of a batch that needs none: this takes one of each.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        rows = torch.cat((first, second))
        above, below = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)
        distances = rows.new_zeros(len(rows), len(rows))
        distances[above, below] = F.pdist(rows, p=1)
        distances = distances + distances.T
        ctx.save_for_backward(first, second, distances)
        return distances

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        first, second, distances = ctx.saved_tensors
        rows = torch.cat((first, second))
        grad = (grad + grad.T).contiguous()  # a pair's distance is there twice
        grads: list[Tensor | None] = []
        for images, start, needed in zip((first, second), (0, len(first)), ctx.needs_input_grad, strict=True):
            these = slice(start, start + len(images))
            args = grad[these], images, rows, 1.0, distances[these]
            grads.append(torch.ops.aten._cdist_backward(*args) if needed else None)
        return grads[0], grads[1]


class _Cosine:
    """One minus the cosine, with the interface of _MeanL1.

    In fp64: similar images have a cosine so near 1 that 1 - cos would keep few digits of an fp32 one.
    """

    @staticmethod
    def pieces(images: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (F.normalize(images.flatten(1).double(), dim=1),)

    @staticmethod
    def unit(images: Tensor) -> int:
        return 1

    @staticmethod
    def paired(first: Tensor, second: Tensor) -> Tensor:
        return 1 - (first * second).sum(1)

    @staticmethod
    def matrix(first: Tensor, second: Tensor) -> Tensor:
        rows = torch.cat((first, second))
        return 1 - rows @ rows.T


_DISTANCES = {'l1': _MeanL1, 'cosine': _Cosine}


def _total(distances: Callable[[Tensor, Tensor], Tensor], first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([distances(*pieces) for pieces in zip(first, second, strict=True)]).sum(0)


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
