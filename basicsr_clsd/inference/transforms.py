"""What is made of an ``upscale`` for RGB: a self-ensemble, and one for gray and transparent images."""

from itertools import product
from typing import Literal

import torch
from torch import Tensor

from basicsr_clsd.images.photo import GRAY, GRAY_ALPHA, RGB, RGBA
from basicsr_clsd.inference.network import Upscale

Alpha = Literal['network', 'bicubic']

# ITU-R BT.601 for 8 bits, Y in [16, 235], as MATLAB and BasicSR have it; here of 1, not of 255.
YCBCR = torch.tensor([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
OFFSET = torch.tensor([16.0, 128.0, 128.0]).view(3, 1, 1) / 255

BICUBIC_FIELD = 2  # how far bicubic upscaling sees, in LR pixels

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


def for_any_channels(upscale: Upscale, scale: int, alpha: Alpha, channels: int = RGB) -> Upscale:
    """Make of an ``upscale`` for RGB or luma one for (1, C, h, w) with C = 1 (gray), 2 (gray, alpha), 3 or 4 (RGBA).

    For a network of RGB gray goes in as three equal channels, and the mean of the three that come out is the result. A
    network of luma takes gray as it is; of colours it gets Y (ITU-R BT.601, as in its training), while Cb and Cr are
    upscaled by MATLAB's bicubic. Alpha goes through the network as gray does, or is upscaled by MATLAB's bicubic; where
    a part has one value, it keeps it.

    Args:
        upscale: Upscales (1, 3, h, w), or (1, 1, h, w).
        scale: Super-resolution factor s.
        alpha: How transparency is upscaled.
        channels: Of what ``upscale`` takes: 3, or 1 for luma.
    """

    def gray(image: Tensor) -> Tensor:
        return upscale(image.expand(-1, channels, -1, -1)).mean(1, keepdim=True)

    def colours(image: Tensor) -> Tensor:
        if channels == RGB:
            return upscale(image)
        luma, chroma = _to_ycbcr(image).split([GRAY, RGB - GRAY], 1)
        large = upscale(luma)
        return _to_rgb(torch.cat([large, _bicubic(chroma, scale).to(large.device)], 1))

    def transparency(image: Tensor) -> Tensor:
        if bool((image == image[..., :1, :1]).all()):
            return image[..., :1, :1].expand(-1, -1, image.shape[2] * scale, image.shape[3] * scale)
        return gray(image) if alpha == 'network' else _bicubic(image, scale)

    def any_channels(image: Tensor) -> Tensor:
        found = image.shape[1]
        shown = gray(image[:, :GRAY]) if found in (GRAY, GRAY_ALPHA) else colours(image[:, :RGB])
        if found not in (GRAY_ALPHA, RGBA):
            return shown
        return torch.cat([shown, transparency(image[:, -1:]).to(shown.device)], 1)

    return any_channels


def _bicubic(image: Tensor, scale: int) -> Tensor:
    """Upscale (1, C, h, w) by MATLAB's bicubic."""
    # Imported here as it brings SciPy, and few images come this way.
    from basicsr_clsd.images.matlab_resize import matlab_resize  # noqa: PLC0415

    pixels = image[0].permute(1, 2, 0).contiguous().numpy()
    return torch.from_numpy(matlab_resize(pixels, scale)).float().permute(2, 0, 1)[None]


def _to_ycbcr(image: Tensor) -> Tensor:
    """Y, Cb, Cr of RGB, all (N, 3, h, w) in [0, 1]."""
    return torch.einsum('ij,njhw->nihw', YCBCR.to(image.device), image) + OFFSET.to(image.device)


def _to_rgb(image: Tensor) -> Tensor:
    inverse = YCBCR.double().inverse().float().to(image.device)
    return torch.einsum('ij,njhw->nihw', inverse, image - OFFSET.to(image.device))
