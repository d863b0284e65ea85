"""Pixel shuffles that move whole pixels' worth of channels, for CPUs."""

from typing import Any

import torch
from torch import Tensor, nn

from basicsr_clsd.networks.precision import replace, share

IMAGES = 4  # dimensions
HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')


class BlockwiseUpsample(nn.Sequential):
    """A sequence in which a convolution before a pixel shuffle makes its channels in the order that suits the shuffle.

    In channels_last memory a pixel shuffle (Shi et al., 2016, Eq. 4) of C·r² channels moves single values, which
    is slow on a CPU, most of all in its gradient. With the C channels of each output pixel side by side, both copy
    blocks of C values. The images are the same in every bit; gradients are sums in another order.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Sequential's name)
        """Run the modules on (N, C, H, W)."""
        x, modules = input, list[Any](self)
        while modules:
            module = modules.pop(0)
            if modules and _is_pair(module, modules[0]) and _suits(x):
                x = _upsample(x, module, modules.pop(0).upscale_factor)
            else:
                x = module(x)
        return x


def upsample_blockwise(network: nn.Module) -> None:
    """Make sequences with a convolution before a pixel shuffle :class:`BlockwiseUpsample`; weights keep their keys."""
    for module in list(network.modules()):
        if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
            continue
        if any(map(_is_pair, list(module), list(module)[1:])):
            replace(network, module, share(module, BlockwiseUpsample))


def _is_pair(convolution: nn.Module, shuffle: nn.Module) -> bool:
    """Whether these are a convolution and a pixel shuffle, and no hook looks at what goes between them."""
    watched = any(getattr(module, hooks) for module in (convolution, shuffle) for hooks in HOOKS)
    return type(convolution) is nn.Conv2d and type(shuffle) is nn.PixelShuffle and not watched


def _suits(x: Tensor) -> bool:
    return x.device.type == 'cpu' and x.dim() == IMAGES and x.is_contiguous(memory_format=torch.channels_last)


def _upsample(x: Tensor, convolution: nn.Conv2d, factor: int) -> Tensor:
    """Convolve and shuffle."""

    def by_place(values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, factor**2)).transpose(0, 1).flatten(0, 1)

    bias = None if convolution.bias is None else by_place(convolution.bias)
    made = convolution._conv_forward(x, by_place(convolution.weight), bias)
    rows = made.permute(0, 2, 3, 1).unflatten(3, (factor, factor, -1))  # (N, H, W, r, r, C)
    return rows.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
