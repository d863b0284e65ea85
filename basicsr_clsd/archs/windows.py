"""Images of whole attention windows, for transformers."""

import math

import torch
from torch import Tensor, nn


def window_of(network: nn.Module) -> int:
    """Side of a transformer's attention windows in LR pixels, or what all its windows divide; 1: it has none."""
    # BasicSR's SwinIR does not say it itself, only its blocks do.
    sizes = (getattr(module, 'window_size', None) for module in network.modules())
    return math.lcm(*(size for size in sizes if isinstance(size, int)))


def whole_windows(image: Tensor, window: int) -> Tensor:
    """Mirror images (N, C, h, w) at their lower and right border up to multiples of ``window``, as SwinIR is tested.

    Of an image smaller than what is missing, mirror images of mirror images are added.
    """
    for axis in (2, 3):
        length = image.shape[axis]
        missing = -length % window
        if missing:
            places = torch.arange(length + missing, device=image.device) % (2 * length)
            image = image.index_select(axis, torch.minimum(places, 2 * length - 1 - places))
    return image
