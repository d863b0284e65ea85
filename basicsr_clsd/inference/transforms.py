"""What is made of an ``upscale`` for RGB: a self-ensemble, and one for gray and transparent images."""

from itertools import product
from typing import Literal

import torch
from torch import Tensor

from basicsr_clsd.images.picture import GRAY, GRAY_ALPHA, RGB, RGBA
from basicsr_clsd.inference.network import Upscale

Alpha = Literal['network', 'bicubic']

FLIPS = ((), (2,), (3,), (2, 3))
SIZE = 2 * len(FLIPS)


def self_ensemble(upscale: Upscale) -> Upscale:
    """Make of an ``upscale`` the mean of its outputs for the eight turned and mirrored images, turned back.

    The geometric self-ensemble of Timofte, Rothe and Van Gool (CVPR 2016); "EDSR+" in Lim et al. (CVPRW 2017).

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


def for_any_channels(upscale: Upscale, scale: int, alpha: Alpha) -> Upscale:
    """Make of an ``upscale`` for RGB one for (1, C, h, w) with C = 1 (gray), 2 (gray, alpha), 3 or 4 (RGB, alpha).

    Gray goes in as three equal channels, and the mean of the three that come out is the result. Alpha goes through the
    network as gray does, or is upscaled by MATLAB's bicubic; where a part has one value, it keeps it.
    """

    def gray(image: Tensor) -> Tensor:
        return upscale(image.expand(-1, RGB, -1, -1)).mean(1, keepdim=True)

    def transparency(image: Tensor) -> Tensor:
        if bool((image == image[..., :1, :1]).all()):
            return image[..., :1, :1].expand(-1, -1, image.shape[2] * scale, image.shape[3] * scale)
        if alpha == 'network':
            return gray(image)
        # Imported here as it brings SciPy, and few images come this way.
        from basicsr_clsd.images.matlab_resize import matlab_resize  # noqa: PLC0415

        return torch.from_numpy(matlab_resize(image[0, 0].numpy(), scale)).float()[None, None]

    def any_channels(image: Tensor) -> Tensor:
        channels = image.shape[1]
        colours = gray(image[:, :GRAY]) if channels in (GRAY, GRAY_ALPHA) else upscale(image[:, :RGB])
        if channels not in (GRAY_ALPHA, RGBA):
            return colours
        return torch.cat([colours, transparency(image[:, -1:])], 1)

    return any_channels
