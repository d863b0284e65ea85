"""Gray and transparent images for networks that know RGB alone."""

from typing import Literal

import torch
from torch import Tensor

from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.images.picture import GRAY, GRAY_ALPHA, RGB, RGBA
from basicsr_clsd.inference.tiles import Upscale

Alpha = Literal['network', 'bicubic']


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
        return torch.from_numpy(matlab_resize(image[0, 0].numpy(), scale)).float()[None, None]

    def any_channels(image: Tensor) -> Tensor:
        channels = image.shape[1]
        colours = gray(image[:, :GRAY]) if channels in (GRAY, GRAY_ALPHA) else upscale(image[:, :RGB])
        if channels not in (GRAY_ALPHA, RGBA):
            return colours
        return torch.cat([colours, transparency(image[:, -1:])], 1)

    return any_channels
