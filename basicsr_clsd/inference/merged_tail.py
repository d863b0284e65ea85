"""EDSR's upsampler and last convolution as one convolution."""

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn

from basicsr_clsd.networks.fused import FusedConv2d

RADIUS = 2  # of the merged convolution, in LR pixels: one for the first convolution, less than one for all that follow
BAND = 2**15  # LR pixels of a band, so that memory does not grow with the image


class MergedTail:
    """What follows the trunk of a fused EDSR, for images, in float32.

    Nothing but pixel shuffles is between the convolutions of the upsampler and the last one, so together they are one
    convolution, of 5 x 5 LR pixels to s x s output pixels: at x4 with 64 channels a tenth of the products. Only next to
    the border, where each of them pads with zeros, it would be another; there they compute by themselves.

    Args:
        plain: In ``eval``, on a CPU, in float32.
        running: The same, fused.
        scale: Super-resolution factor s.
    """

    def __init__(self, plain: EDSR, running: EDSR, scale: int) -> None:
        self._modules = nn.Sequential(running.upsample, running.conv_last)
        self._convolution = FusedConv2d(merged(nn.Sequential(plain.upsample, plain.conv_last), scale), torch.float32)
        self._scale = scale

    def __call__(self, feature: Tensor) -> Tensor:
        """Upscale (N, C, h, w) to (N, 3, h·s, w·s)."""
        number, _, height, width = feature.shape
        made = torch.empty(number, height, self._scale, width, self._scale * 3)
        rows = max(BAND // width, 1)
        for top in range(0, height, rows):
            start, end = max(top - RADIUS, 0), min(top + rows, height)
            part = self._convolution(feature[:, :, start : end + RADIUS]).permute(0, 2, 3, 1)
            made[:, top:end] = part[:, top - start : end - start].unflatten(3, (self._scale, -1)).transpose(2, 3)
        image = made.view(number, height * self._scale, width * self._scale, 3).permute(0, 3, 1, 2)
        for axis in (2, 3):
            self._put_border(image, feature, axis)
        return image

    def _put_border(self, image: Tensor, feature: Tensor, axis: int) -> None:
        """Put the outermost LR pixel's output along both ends of an axis into the image."""
        seen, length = min(1 + RADIUS, feature.shape[axis]), feature.shape[axis]
        for start, place in ((0, 0), (length - seen, length - 1)):
            strip = self._modules(feature.narrow(axis, start, seen)).float()
            pixels = strip.narrow(axis, (place - start) * self._scale, self._scale)
            image.narrow(axis, place * self._scale, self._scale).copy_(pixels)


def merged(tail: nn.Sequential, scale: int) -> nn.Conv2d:
    """The convolution that a sequence of convolutions and pixel shuffles comes to, away from the border.

    Args:
        tail: Upscales (N, C, h, w) to (N, 3, h·s, w·s); sees no further than ``RADIUS``.
        scale: s.

    Returns:
        To s·s·3 channels: the output pixels of an LR pixel, row after row.
    """
    outputs, side = 3 * scale**2, 2 * RADIUS + 1
    channels = next(module for module in tail.modules() if isinstance(module, nn.Conv2d)).in_channels
    # The derivatives of each output in the middle of a window of the kernel's size are its weights.
    windows = torch.zeros(outputs, channels, side, side, requires_grad=True)
    middle = slice(RADIUS * scale, (RADIUS + 1) * scale)
    with torch.enable_grad():
        values = tail(windows)[:, :, middle, middle].permute(0, 2, 3, 1).flatten(1)
        weight = torch.autograd.grad(values.trace(), windows)[0]
    convolution = nn.Conv2d(channels, outputs, side, padding=RADIUS)
    convolution.weight, convolution.bias = (nn.Parameter(value.detach(), False) for value in (weight, values[0]))
    return convolution
