"""Features that a small trained network, the regressor, translates from the student's channels to the teacher's."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.losses.distillation_loss import DistillationLoss, Outputs, paired_features

FITNET_LAYERS, LFD_LAYERS = 1, 2
SLOPE = 0.1
STD_EPS = 1e-8


@LOSS_REGISTRY.register()
class RegressedFeatureLoss(DistillationLoss):
    """Mean over taps of ``mean |r(F_S) - F_T|``, with a trained regressor r for each tap.

    ``num_layer: 1`` is the hint of FitNet (Romero et al., ICLR 2015, Eq. 3, with L1 for the squared distance): a
    convolution. ``num_layer: 2`` is LFD-style (after arXiv 2111.10988): convolution, LeakyReLU of slope 0.1,
    convolution, with the teacher's number of channels in between. The regressors exist in training only.

    Args:
        student_channels: Channels of the student's feature at each tap.
        teacher_channels: Channels of the teacher's.
        loss_weight: Factor on the mean; features are in their networks' own units (EDSR's: 8-bit).
        num_layer: Convolutions of a regressor, 1 or 2.
        kernel_size: Side of their kernels in pixels, odd.

    Raises:
        ValueError: An option is none of its choices.
    """

    symbol = 'L_F'

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        loss_weight: float = 1.0,
        num_layer: int = LFD_LAYERS,
        kernel_size: int = 1,
    ) -> None:
        super().__init__()
        if num_layer not in (FITNET_LAYERS, LFD_LAYERS):
            raise ValueError(f'num_layer must be 1 or 2, not {num_layer!r}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, not {kernel_size!r}')
        self.loss_weight = loss_weight
        self.regressors = nn.ModuleList(
            _regressor(mine, its, num_layer, kernel_size)
            for mine, its in zip(student_channels, teacher_channels, strict=True)
        )

    def forward(self, student: Outputs, teacher: Outputs, gt: Tensor) -> Tensor:
        """Return ``loss_weight`` times the mean over taps; HR images are not looked at."""
        pairs = paired_features(student, teacher)
        distances = [
            self.distance(regressor(mine), its, student, teacher)
            for regressor, (mine, its) in zip(self.regressors, pairs, strict=True)
        ]
        return self.loss_weight * torch.stack(distances).mean()

    def distance(self, regressed: Tensor, feature: Tensor, student: Outputs, teacher: Outputs) -> Tensor:
        """The distance of one tap's regressed feature to the teacher's, (N, C', h, w) both."""
        return (regressed - feature).abs().mean()


@LOSS_REGISTRY.register()
class SelectiveFeatureLoss(RegressedFeatureLoss):
    """:class:`RegressedFeatureLoss` where it matters: LSFD-style (after arXiv 2111.10988), with soft spatial attention.

    The positions of each image are weighted by how far the two outputs are from each other there::

        M = hw * softmax(standardised(D) / temperature), D = mean over RGB of |SR_T - SR_S|, pooled to h x w

    which has mean 1 and no gradient.

    Args:
        student_channels: See :class:`RegressedFeatureLoss`, as for all but the last.
        teacher_channels: See there.
        loss_weight: See there.
        num_layer: See there.
        kernel_size: See there.
        temperature: A large one weights all positions alike.

    Raises:
        ValueError: An option is none of its choices, or ``temperature`` is not positive.
    """

    symbol = 'L_SF'

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        loss_weight: float = 1.0,
        num_layer: int = LFD_LAYERS,
        kernel_size: int = 1,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(student_channels, teacher_channels, loss_weight, num_layer, kernel_size)
        if temperature <= 0:
            raise ValueError(f'temperature must be positive, not {temperature!r}')
        self.temperature = temperature

    def distance(self, regressed: Tensor, feature: Tensor, student: Outputs, teacher: Outputs) -> Tensor:
        """The attention-weighted distance of one tap."""
        return (self.attention(student.sr, teacher.sr, feature.shape[2:]) * (regressed - feature).abs()).mean()

    @torch.no_grad()
    def attention(self, sr: Tensor, teacher_sr: Tensor, size: Sequence[int]) -> Tensor:
        """M, (N, 1, h, w), of two outputs (N, 3, h·s, w·s) in any units.

        Raises:
            ValueError: The outputs are not a multiple of ``size`` large.
        """
        scale = sr.shape[2] // size[0]
        if tuple(sr.shape[2:]) != (size[0] * scale, size[1] * scale) or sr.shape != teacher_sr.shape:
            shapes = f'{tuple(sr.shape)} and {tuple(teacher_sr.shape)}'
            raise ValueError(f'outputs {shapes} cannot be pooled to a feature of {tuple(size)}')
        difference = F.avg_pool2d((teacher_sr - sr).abs().mean(1, keepdim=True), scale).flatten(1)
        centred = difference - difference.mean(1, keepdim=True)
        standardised = centred / (centred.square().mean(1, keepdim=True).sqrt() + STD_EPS)
        attention = standardised.shape[1] * torch.softmax(standardised / self.temperature, 1)
        return attention.view(-1, 1, *size)


def _regressor(channels: int, wanted: int, num_layer: int, kernel_size: int) -> nn.Sequential:
    how: dict[str, Any] = {'kernel_size': kernel_size, 'padding': kernel_size // 2}
    first = nn.Conv2d(channels, wanted, **how)
    if num_layer == FITNET_LAYERS:
        return nn.Sequential(first)
    return nn.Sequential(first, nn.LeakyReLU(SLOPE), nn.Conv2d(wanted, wanted, **how))
