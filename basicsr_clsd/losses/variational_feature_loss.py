"""Features that a student's features predict, as far as they can."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.losses.distillation_loss import DistillationLoss, Outputs, paired_features

SPREAD, LEAST = 0.1, 1e-8  # b = SPREAD * v + LEAST


@LOSS_REGISTRY.register()
class VariationalFeatureLoss(DistillationLoss):
    """Sum over taps of ``mean(ln(2 b) + |mu - F_T| / b)``: L_VID of PISR (Lee et al., ECCV 2020), as its code has it.

    It is the negative log-likelihood of the teacher's feature under Laplace laws whose location ``mu`` and scale ``b``
    are computed from the student's feature, for each channel and position. So the student need not predict what it
    cannot know. Both networks (convolution 1x1, PReLU, convolution 1x1; for b softplus behind them) exist in training
    only.

    Args:
        student_channels: Channels of the student's feature at each tap.
        teacher_channels: Channels of the teacher's.
        loss_weight: Factor on the sum, which has no unit; it may be negative.
        feature_scale: Both features are divided by it, so that they are about 1, as b is at first. EDSR's are 255 times
            as large.
        constant: Add ``C ln(2 pi) / 2`` for each tap, as the code does; it has no gradient.

    Raises:
        ValueError: ``feature_scale`` is not positive.
    """

    symbol = 'L_VID'

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        loss_weight: float = 1.0,
        feature_scale: float = 255.0,
        constant: bool = False,
    ) -> None:
        super().__init__()
        if feature_scale <= 0:
            raise ValueError(f'feature_scale must be positive, not {feature_scale!r}')
        self.loss_weight, self.feature_scale, self.constant = loss_weight, feature_scale, constant
        channels = list(zip(student_channels, teacher_channels, strict=True))
        self.locations = nn.ModuleList(_predictor(given, wanted) for given, wanted in channels)
        self.scales = nn.ModuleList(_predictor(given, wanted) for given, wanted in channels)

    def forward(self, student: Outputs, teacher: Outputs, gt: Tensor) -> Tensor:
        """Return ``loss_weight`` times the sum over taps; images are not looked at."""
        total = []
        predictors = zip(self.locations, self.scales, paired_features(student, teacher), strict=True)
        for location, scale, pair in predictors:
            given, wanted = (feature / self.feature_scale for feature in pair)
            b = SPREAD * F.softplus(scale(given)) + LEAST
            constant = wanted.shape[1] * math.log(2 * math.pi) / 2 if self.constant else 0
            total.append((torch.log(2 * b) + (location(given) - wanted).abs() / b).mean() + constant)
        return self.loss_weight * torch.stack(total).sum()


def _predictor(channels: int, wanted: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, wanted, 1), nn.PReLU(), nn.Conv2d(wanted, wanted, 1))
