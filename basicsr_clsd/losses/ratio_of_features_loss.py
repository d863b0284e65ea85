"""The contrastive ratio of CSD: the student's features near the teacher's and far from those of blurred images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from basicsr_clsd.runtime.collectives import average_of_processes

VGG19_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # after relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
EPS = 1e-7


class RatioTerms(NamedTuple):
    """What :meth:`RatioOfFeaturesLoss.measure` returns; ``loss`` alone has a gradient."""

    loss: Tensor  # a scalar
    positive: Tensor  # A_l, (L,)
    negative: Tensor  # B_l, (L,)


@LOSS_REGISTRY.register()
class RatioOfFeaturesLoss(nn.Module):
    """The contrastive term of CSD (Wang et al., IJCAI 2021), a sum over layers of ratios of batch means.

    With V_l the features of an image in layer l, S and T the student's and the teacher's outputs, N_k the negatives::

        L_C = sum_l w_l A_l / (B_l + 1e-7)
        A_l = mean |V_l(S) - V_l(T)|,  B_l = mean of sum_k |V_l(N_k) - V_l(S)|

    both means over images, channels and positions. Every image has the same negatives.

    Args:
        loss_weight: Factor on L_C.
        num_negative: K, images of the batch whose bicubic upscalings are the negatives.
        layer_weights: w_l; default the last of 1/32, 1/16, 1/8, 1/4, 1, for as many layers as there are, at most five.
        detach_teacher: The teacher's output gets no gradient.

    Raises:
        ValueError: An option is none of its choices.
    """

    def __init__(
        self,
        loss_weight: float = 200.0,
        num_negative: int = 10,
        layer_weights: Sequence[float] | None = None,
        detach_teacher: bool = True,
    ) -> None:
        super().__init__()
        if type(num_negative) is not int or num_negative < 1:
            raise ValueError(f'num_negative must be a number from 1, not {num_negative!r}')
        self.loss_weight, self.num_negative, self.detach_teacher = loss_weight, num_negative, detach_teacher
        self.layer_weights = None if layer_weights is None else tuple(layer_weights)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], negatives: Sequence[Tensor]) -> Tensor:
        """Return ``loss_weight * L_C``; arguments and errors as for :meth:`measure`."""
        return self.measure(student, teacher, negatives).loss

    def measure(self, student: Sequence[Tensor], teacher: Sequence[Tensor], negatives: Sequence[Tensor]) -> RatioTerms:
        """Compute the loss and, for the log, the means that it is made of, over the batches of all processes.

        Args:
            student: V_l(S), (N, C_l, h_l, w_l) for each layer.
            teacher: V_l(T), of the same shapes.
            negatives: V_l(N_k), (K, C_l, h_l, w_l).

        Raises:
            ValueError: There are not as many weights as layers.
        """
        weights = VGG19_WEIGHTS[-len(student) :] if self.layer_weights is None else self.layer_weights
        if len(weights) != len(student):
            raise ValueError(f'layer_weights: {len(weights)} for {len(student)} features')
        layers = list(zip(student, teacher, negatives, strict=True))
        positive = [(mine - (its.detach() if self.detach_teacher else its)).abs().mean() for mine, its, _ in layers]
        negative = [_SummedDistance.apply(mine, others.detach()) / mine.numel() for mine, _, others in layers]
        # The ratio of the whole batch's means, not the mean of the processes' ratios.
        means = average_of_processes(torch.stack([torch.stack(positive), torch.stack(negative)]))
        ratios = means[0] / (means[1] + EPS)
        loss = torch.stack([weight * ratio for weight, ratio in zip(weights, ratios, strict=True)]).sum()
        return RatioTerms(self.loss_weight * loss, means[0].detach(), means[1].detach())


class _SummedDistance(torch.autograd.Function):
    """Sum over k and all values of ``|negative_k - feature|``; it keeps a sum of signs, no difference for each k."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, negatives: Tensor) -> Tensor:
        total, signs = feature.new_zeros(()), torch.zeros_like(feature)
        for negative in negatives:
            difference = feature - negative
            signs += difference.sign()
            total += difference.abs_().sum()
        ctx.save_for_backward(signs)
        return total

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        (signs,) = ctx.saved_tensors
        return gradients[0] * signs, None
