"""ECBSR's blocks as the convolutions that they come to."""

import torch
from basicsr.archs.ecbsr_arch import ECB
from torch import nn

from basicsr_clsd.archs.full_precision import FullPrecisionConv2d
from basicsr_clsd.networks.precision import FullPrecisionECB, replace


@torch.no_grad()
def merge_branches(network: nn.Module) -> nn.Module:
    """Put one convolution in the place of each block of ECBSR, in place, and return the network.

    A block has several branches to be trained (Zhang et al., ACM MM 2021, Eq. 4 to 9). In ``eval`` BasicSR computes the
    convolution that they sum up to in each call, from the weights of all.

    Args:
        network: Its weights are final.
    """
    for block in list(network.modules()):
        if isinstance(block, ECB):
            kind = FullPrecisionConv2d if isinstance(block, FullPrecisionECB) else nn.Conv2d
            convolution = kind(block.in_channels, block.out_channels, 3, padding=1)
            for name, value in zip(('weight', 'bias'), block.rep_params(), strict=True):
                setattr(convolution, name, nn.Parameter(value, requires_grad=False))
            replace(network, block, nn.Sequential(convolution, getattr(block, 'act', nn.Identity())))
    return network
