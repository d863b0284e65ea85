"""Features near the teacher's of the same image, and far from those of other images."""

from collections.abc import Sequence
from typing import Any

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr_clsd.losses.adaptive import TEACHER_BETTER, check_adaptive, chosen
from basicsr_clsd.losses.contrastive_loss import pieces
from basicsr_clsd.losses.distillation_loss import Outputs, paired_features
from basicsr_clsd.losses.regressed_feature_loss import LFD_LAYERS, RegressedFeatureLoss
from basicsr_clsd.runtime.collectives import gather_batches, own_rows

TEACHER, STUDENT = 'teacher', 'student'
EPS = 1e-7


@LOSS_REGISTRY.register()
class ContrastiveFeatureLoss(RegressedFeatureLoss):
    """Sum over taps j and images i of ``m_i d(r_j(F_S), F_T) / (sum over k != i of d(r_j(F_S), F_k) + 1e-7)``.

    FACD-style, after Moon et al., arXiv 2211.15951, whose formulas and code are not public. d is the mean absolute
    difference, F_k the feature of another image of the whole batch, without gradient, r_j a regressor, which exists in
    training only, and m_i says which images are distilled. Micro-batches have their own negatives.

    Args:
        student_channels: See :class:`RegressedFeatureLoss`, as for the next four.
        teacher_channels: See there.
        loss_weight: Factor on the sum, which has no unit.
        num_layer: See there.
        kernel_size: See there.
        negatives: Whose F_k: ``teacher``, and ``student``, the regressed ones; or both.
        reduction: ``sum`` or ``mean`` over images.
        adaptive: m_i, see :func:`~basicsr_clsd.losses.adaptive.chosen`.

    Raises:
        ValueError: An option is none of its choices.
    """

    symbol = 'L_CF'
    needs_gt = True
    compares_images = True

    def __init__(  # noqa: PLR0913  (what can be chosen, and the channels)
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        loss_weight: float = 1.0,
        num_layer: int = LFD_LAYERS,
        kernel_size: int = 1,
        negatives: Sequence[str] = (TEACHER,),
        reduction: str = 'sum',
        adaptive: str = TEACHER_BETTER,
    ) -> None:
        super().__init__(student_channels, teacher_channels, loss_weight, num_layer, kernel_size)
        if not negatives or isinstance(negatives, str) or not {*negatives} <= {TEACHER, STUDENT}:
            raise ValueError(f'negatives must be a list of {TEACHER} and {STUDENT}, not {negatives!r}')
        if reduction not in ('sum', 'mean'):
            raise ValueError(f'reduction must be sum or mean, not {reduction!r}')
        check_adaptive(adaptive)
        self.negatives, self.reduction, self.adaptive = tuple(dict.fromkeys(negatives)), reduction, adaptive

    def forward(self, student: Outputs, teacher: Outputs, gt: Tensor) -> Tensor:
        """Return ``loss_weight`` times the sum; of several processes each returns as many times its own share."""
        mask = chosen(self.adaptive, student.sr, teacher.sr, gt)
        self.measures = {'adapt': mask.mean()}
        ratios = []
        for regressor, (mine, its) in zip(self.regressors, paired_features(student, teacher), strict=True):
            regressed = regressor(mine)
            positive = (regressed - its).abs().flatten(1).mean(1)
            ratios.append(positive / (self._denominator(regressed, its) + EPS))
        images = len(gather_batches([mask])[0]) if self.reduction == 'sum' else 1
        # A mean over the own images times the number of all: the mean over processes is then the sum.
        return self.loss_weight * images * (mask * torch.stack(ratios).sum(0)).mean()

    def _denominator(self, regressed: Tensor, feature: Tensor) -> Tensor:
        """The summed distances of each image's regressed feature to the negatives, (N,)."""
        total, own = regressed.new_zeros(()), own_rows(len(regressed))
        for kind in self.negatives:
            (others,) = gather_batches([(feature if kind == TEACHER else regressed).detach().contiguous()])
            distances: Tensor = _MeanL1.apply(regressed.flatten(1), others.flatten(1))  # pyright: ignore[reportAssignmentType]
            same = torch.eye(len(others), dtype=torch.bool, device=others.device)[own]
            total = total + distances.masked_fill(same, 0).sum(1)
        return total


class _MeanL1(torch.autograd.Function):
    """Mean absolute differences (N, M) of rows (N, D) to others (M, D), which get no gradient; nothing is N x M x D."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, others: Tensor) -> Tensor:
        ctx.save_for_backward(rows, others)
        return torch.cdist(rows, others, p=1) / rows.shape[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_distances: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, others = ctx.saved_tensors
        weights = (of_distances / rows.shape[1]).contiguous()
        # The last argument is for the distances, which the gradient of an l1 norm has no use for.
        parts = [
            torch.ops.aten._cdist_backward(
                weights, rows[:, columns].contiguous(), others[:, columns].contiguous(), 1.0, weights
            )
            for columns in pieces(others)
        ]
        return torch.cat(parts, 1), None
