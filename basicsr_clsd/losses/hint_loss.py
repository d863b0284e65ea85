"""Hints within one network: what goes into the heads' upsamplers, near what goes into the student's."""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

CONV, NONE = 'conv', 'none'
STUDENT, NEXT = 'student', 'next'
DISTANCES = {'l1': torch.abs, 'l2': torch.square}


@LOSS_REGISTRY.register()
class HintLoss(nn.Module):
    """L_H: mean over heads j of ``mean d(A_j(F_j) - F*)``, the hint of BYOT (Zhang et al., ICCV 2019) for images.

    F_j is the feature that head j's upsampler is given, F* the student's, without gradient, A_j a trained adapter that
    exists in training only.

    Args:
        head_channels: Channels of each head's feature.
        student_channels: Channels of the student's.
        loss_weight: Factor on the mean; features are in their network's own units (EDSR's: 8-bit).
        distance: ``l1``, the absolute difference, or ``l2``, its square.
        adapter: ``conv``, a convolution 1x1, or ``none``, which needs features of as many channels.
        source: Whom a head learns from: ``student``, or ``next``, the head behind it (the last one from the student).
        skip: Numbers, from 1, of heads that get no hint.

    Raises:
        ValueError: An option is none of its choices, or does not fit the heads.
    """

    def __init__(  # noqa: PLR0913  (what can be chosen, and the channels)
        self,
        head_channels: Sequence[int],
        student_channels: int,
        loss_weight: float = 1.0,
        distance: str = 'l1',
        adapter: str = CONV,
        source: str = STUDENT,
        skip: Sequence[int] = (),
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ('distance', distance, (*DISTANCES,)),
            ('adapter', adapter, (CONV, NONE)),
            ('source', source, (STUDENT, NEXT)),
        ):
            if value not in choices:
                raise ValueError(f'{name} must be {" or ".join(choices)}, not {value!r}')
        count = len(head_channels)
        if not isinstance(skip, Sequence) or any(
            type(number) is not int or not 1 <= number <= count for number in skip
        ):
            raise ValueError(f'skip must be a list of numbers from 1 to {count}, the number of heads, not {skip!r}')
        self.heads = [number for number in range(count) if number + 1 not in skip]
        if not self.heads:
            raise ValueError(f'skip leaves out all {count} heads')
        self.loss_weight, self.distance, self.source = loss_weight, DISTANCES[distance], source
        wanted = [*head_channels[1:], student_channels] if source == NEXT else [student_channels] * count
        unequal = next((number for number in self.heads if head_channels[number] != wanted[number]), None)
        if adapter == NONE and unequal is not None:
            raise ValueError(
                f'adapter: none needs features of as many channels; head {unequal + 1} has {head_channels[unequal]}, '
                f'what it learns from {wanted[unequal]}'
            )
        self.adapters = nn.ModuleList(
            nn.Identity() if adapter == NONE else nn.Conv2d(head_channels[number], wanted[number], 1)
            for number in self.heads
        )

    def forward(self, features: Sequence[Tensor], target: Tensor) -> Tensor:
        """Return ``loss_weight * L_H``.

        Args:
            features: F_j of all heads, (N, C_j, h, w) each.
            target: F*, (N, C, h, w).
        """
        targets = [*features[1:], target] if self.source == NEXT else [target] * len(features)
        distances = [
            self.distance(adapter(features[number]) - targets[number].detach()).mean()
            for number, adapter in zip(self.heads, self.adapters, strict=True)
        ]
        return self.loss_weight * torch.stack(distances).mean()
