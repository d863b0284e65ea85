"""Mixed precision that keeps what decides on an image's last bits in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from basicsr.archs.ecbsr_arch import ECB
from torch import Tensor, nn


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution that autocast leaves in the precision of its weights, float32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Conv2d's name)
        """Convolve (N, C, H, W)."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class FullPrecisionECB(ECB):
    """ECBSR's block of convolutions, which uses their weights without calling them, in the precision of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.conv3x3.weight.dtype))


FULL_PRECISION = {nn.Conv2d: FullPrecisionConv2d, ECB: FullPrecisionECB}


@contextmanager
def ends_in_full_precision(network: nn.Module) -> Iterator[None]:
    """Keep the convolutions that run first and last within the context out of autocast from then on.

    They see and make pixels: bfloat16 has 8 bits of mantissa, no more than the pixels themselves, and super-resolution
    networks have no normalisation that would make up for the rounding. Keys of weights stay as they are.
    """
    called: list[nn.Module] = []
    convolutions = [module for module in network.modules() if isinstance(module, tuple(FULL_PRECISION))]
    handles = [module.register_forward_hook(lambda module, *_: called.append(module)) for module in convolutions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for module in (called[0], called[-1]) if called else ():
        if type(module) in FULL_PRECISION:
            module.__class__ = FULL_PRECISION[type(module)]
