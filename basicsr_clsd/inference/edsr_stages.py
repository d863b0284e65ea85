"""EDSR in two stages, so that the memory of a tile does not grow with the scale."""

from typing import Any

from basicsr.archs.edsr_arch import EDSR
from torch import Tensor

from basicsr_clsd.inference.tiles import upscale_in_tiles
from basicsr_clsd.runtime.memory import return_freed_memory

TAIL_TILE = 64
TAIL_REACH = 2  # LR pixels: one for the upsampler's first convolution, less than one for all that follow


def reach(network: EDSR) -> int:
    """How far EDSR sees, in LR pixels: the convolutions before its upsampler, and those from there on."""
    return 2 * len(network.body) + 2 + TAIL_REACH


def upscale_in_stages(network: EDSR, lq: Tensor, scale: int) -> Tensor:
    """EDSR's output, its upsampler and last convolution applied to one part of the trunk's feature after the other.

    The upsampler's features have 4 to 32 times the values of the trunk's, and would decide on how large a tile can be;
    in parts they stay in the processor's cache instead.

    Args:
        network: In ``eval``.
        lq: (N, 3, h, w) in [0, 1].
        scale: The network's s.

    Returns:
        (N, 3, h·s, w·s); that of ``network`` up to the rounding of another shape of convolution.
    """
    mean = network.mean.to(lq)
    first = network.conv_first((lq - mean) * network.img_range)
    feature = network.conv_after_body(_body(network, first.clone())).add_(first)
    del first
    return_freed_memory()  # the upsampler's blocks, of other sizes, would come on top of the trunk's

    def tail(part: Tensor) -> Tensor:
        return network.conv_last(network.upsample(part)).float()

    return upscale_in_tiles(feature, tail, scale, TAIL_TILE, TAIL_REACH).div_(network.img_range).add_(mean)


def _body(network: EDSR, feature: Tensor) -> Tensor:
    """The residual blocks' output, in the place of their input; the bits are those of ``network.body``."""
    blocks: list[Any] = list(network.body)
    for block in blocks:
        feature.add_(block.conv2(block.relu(block.conv1(feature))).mul_(block.res_scale))
    return feature
