"""The divergence between images as Laplace laws, of which L1 is the limit."""

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn


@LOSS_REGISTRY.register()
class LaplaceKLLoss(nn.Module):
    """Mean of b · KL(Laplace(x, b) ‖ Laplace(y, b)) = ``|x - y| + b (exp(-|x - y| / b) - 1)`` over all values.

    For regression it is what the softened Kullback-Leibler divergence of BYOT (Zhang et al., ICCV 2019) is for classes,
    with b for the temperature: L1 is the negative log-likelihood of a Laplace law. It is L1 minus b for differences
    far above b, half the square over b for those far below, and L1 itself for b -> 0.

    Args:
        loss_weight: Factor on the mean, in units of ``train.pixel_range``.
        scale: b, in the same units.

    Raises:
        ValueError: ``scale`` is not positive.
    """

    def __init__(self, loss_weight: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f'scale must be positive, not {scale!r}')
        self.loss_weight, self.scale = loss_weight, scale

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return ``loss_weight`` times the mean, of images (N, C, H, W)."""
        distance = (pred - target).abs()
        return self.loss_weight * (distance + self.scale * torch.expm1(-distance / self.scale)).mean()
