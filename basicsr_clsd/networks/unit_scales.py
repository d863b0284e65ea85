"""Residual blocks of BasicSR's whose factor is 1, without the product with it."""

from basicsr.archs.arch_util import ResidualBlockNoBN
from basicsr.archs.rcan_arch import RCAB
from torch import Tensor, nn

from basicsr_clsd.networks.precision import replace, share


class UnscaledResidualBlock(ResidualBlockNoBN):
    """The block of EDSR, MSRResNet and the heads, with a factor of 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to (N, C, H, W)."""
        return x + self.conv2(self.relu(self.conv1(x)))


class UnscaledRCAB(RCAB):
    """The block of RCAN, with a factor of 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to (N, C, H, W)."""
        return self.rcab(x) + x


UNSCALED = {ResidualBlockNoBN: UnscaledResidualBlock, RCAB: UnscaledRCAB}


def skip_unit_scales(network: nn.Module) -> None:
    """Leave out the products with 1, in place; weights keep their keys, outputs and gradients their bits.

    Each reads and writes a whole feature, forward and backward: a kernel of a GPU each time.
    """
    for module in list(network.modules()):
        unscaled = UNSCALED.get(type(module))
        if unscaled is not None and module.res_scale == 1:
            replace(network, module, share(module, unscaled))
