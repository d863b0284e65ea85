"""What losses between a student and a teacher have in common, and the simplest of them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.losses.adaptive import NONE, check_adaptive, chosen


class Outputs(NamedTuple):
    """What one network makes of a batch, in float32."""

    sr: Tensor  # (N, 3, H, W), in [0, pixel_range]
    features: Sequence[Tensor] = ()  # at the loss's taps, (N, C, h, w) each


class DistillationLoss(nn.Module):
    """A term of ``train.distill_opt``.

    A subclass is registered in BasicSR's ``LOSS_REGISTRY`` and names all its options, ``loss_weight`` among them. One
    with layers of its own also takes ``student_channels`` and ``teacher_channels``, sequences with the channels at each
    tap, which :class:`~basicsr_clsd.models.KDModel` finds out; its parameters are then trained with the student.
    """

    symbol: ClassVar[str]
    """The term's name in the log."""
    compares_images: ClassVar[bool] = False
    """Whether it compares the images of a batch with each other, of which there must be two then."""
    measures: Mapping[str, Tensor] = MappingProxyType({})
    """What else to log of the last call."""
    needs_gt: bool = False
    """Whether it looks at HR images; there are none where a training zooms in."""

    def forward(self, student: Outputs, teacher: Outputs, gt: Tensor) -> Tensor:
        """Compute the weighted term.

        Args:
            student: Has a gradient.
            teacher: Has none.
            gt: HR images (N, 3, H, W), in the range of the networks' outputs.

        Returns:
            A scalar: a mean over the images, so that processes and micro-batches can average it.

        Raises:
            ValueError: The features are not such that the term can compare them.
        """
        raise NotImplementedError


def paired_features(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """The student's and the teacher's feature at each tap.

    Raises:
        ValueError: There are none, not as many, or of other sizes (N, h, w).
    """
    counts = len(student.features), len(teacher.features)
    if counts[0] != counts[1] or not counts[0]:
        raise ValueError(f'needs as many taps of the teacher as of the student, and one at least, not {counts}')
    pairs = list(zip(student.features, teacher.features, strict=True))
    for number, pair in enumerate(pairs, start=1):
        sizes = [(len(feature), *feature.shape[2:]) for feature in pair]
        if sizes[0] != sizes[1]:
            shapes = f'{tuple(pair[0].shape)} of the student and {tuple(pair[1].shape)} of the teacher'
            raise ValueError(f'the features at tap {number} differ in size: {shapes}')
    return pairs


@LOSS_REGISTRY.register()
class OutputDistillationLoss(DistillationLoss):
    """The mean absolute difference of the two outputs, "teacher supervision" in FAKD (He et al., ICIP 2020).

    Args:
        loss_weight: Factor on the mean, in units of ``train.pixel_range``.
        adaptive: Which images, see :func:`~basicsr_clsd.losses.adaptive.chosen`; the mean stays one over all.

    Raises:
        ValueError: ``adaptive`` is none of its choices.
    """

    symbol = 'L_TS'

    def __init__(self, loss_weight: float = 1.0, adaptive: str = NONE) -> None:
        super().__init__()
        check_adaptive(adaptive)
        self.loss_weight, self.adaptive, self.needs_gt = loss_weight, adaptive, adaptive != NONE

    def forward(self, student: Outputs, teacher: Outputs, gt: Tensor) -> Tensor:
        """Return ``loss_weight * mean |SR_S - SR_T|``; features are not looked at."""
        if student.sr.shape != teacher.sr.shape:
            raise ValueError(f'the outputs have shapes {tuple(student.sr.shape)} and {tuple(teacher.sr.shape)}')
        if self.adaptive == NONE:
            return self.loss_weight * (student.sr - teacher.sr).abs().mean()
        mask = chosen(self.adaptive, student.sr, teacher.sr, gt)
        return self.loss_weight * (mask * (student.sr - teacher.sr).abs().flatten(1).mean(1)).mean()


@LOSS_REGISTRY.register()
class GroundTruthLoss(DistillationLoss):
    """The mean absolute difference of the student's output and the ground truth, of other images than ``pixel_opt``.

    Args:
        loss_weight: Factor on the mean, in units of ``train.pixel_range``.
    """

    symbol = 'L_GT'
    needs_gt = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Outputs, teacher: Outputs, gt: Tensor) -> Tensor:
        """Return ``loss_weight * mean |SR_S - HR|``; the teacher is not looked at."""
        return self.loss_weight * (student.sr - gt).abs().mean()
