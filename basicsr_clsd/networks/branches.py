"""ECBSR as plain convolutions, in operators that all converters know."""

import torch
from basicsr.archs.ecbsr_arch import ECB, ECBSR
from torch import Tensor, nn

from basicsr_clsd.archs.full_precision import FullPrecisionConv2d
from basicsr_clsd.networks.precision import FullPrecisionECB, replace, share


class ExpandingECBSR(ECBSR):
    """ECBSR without ``torch.repeat_interleave``, of which ncnn has no form; its bits are the same."""

    def forward(self, x: Tensor) -> Tensor:
        """Upscale (N, C, h, w)."""
        shortcut = x.unsqueeze(2).expand(-1, -1, self.scale**2, -1, -1).flatten(1, 2)
        return self.upsampler(self.backbone(x) + shortcut)


@torch.no_grad()
def merge_branches(network: nn.Module) -> nn.Module:
    """Put one convolution in the place of each block of ECBSR, in place.

    A block has several branches to be trained (Zhang et al., ACM MM 2021, Eq. 4 to 9). In ``eval`` BasicSR computes the
    convolution that they sum up to in each call, from the weights of all.

    Args:
        network: Its weights are final.

    Returns:
        The network; an ECBSR as an :class:`ExpandingECBSR` of the same modules.
    """
    for block in list(network.modules()):
        if isinstance(block, ECB):
            kind = FullPrecisionConv2d if isinstance(block, FullPrecisionECB) else nn.Conv2d
            convolution = kind(block.in_channels, block.out_channels, 3, padding=1)
            for name, value in zip(('weight', 'bias'), block.rep_params(), strict=True):
                setattr(convolution, name, nn.Parameter(value, requires_grad=False))
            replace(network, block, nn.Sequential(convolution, getattr(block, 'act', nn.Identity())))
    return share(network, ExpandingECBSR) if isinstance(network, ECBSR) else network
