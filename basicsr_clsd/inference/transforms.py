"""Geometric self-ensemble (Timofte, Rothe, Van Gool, CVPR 2016; "EDSR+" in Lim et al., CVPRW 2017)."""

from collections.abc import Callable
from itertools import product

from torch import Tensor

FLIPS = ((), (2,), (3,), (2, 3))
SIZE = 2 * len(FLIPS)


def self_ensemble(upscale: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Make of an ``upscale`` the mean of its outputs for the eight turned and mirrored images, turned back.

    Args:
        upscale: (N, C, h, w) to (N, C, h·s, w·s); also for images with height and width exchanged.

    Returns:
        The like, eight times as slow. The mean is of unrounded, unclipped outputs.
    """

    def mean_of_eight(lq: Tensor) -> Tensor:
        outputs = []
        for transposed, flips in product((False, True), FLIPS):
            turned = lq.flip(flips)
            if transposed:
                outputs.append(upscale(turned.mT.contiguous()).mT.flip(flips))
            else:
                outputs.append(upscale(turned).flip(flips))
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total / SIZE

    return mean_of_eight
