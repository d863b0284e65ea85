"""A network's convolutions on a CPU as a compiler runs them: weights packed once, and what follows in the same pass."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from basicsr_clsd.archs.full_precision import FullPrecisionConv2d
from basicsr_clsd.errors import FAULTS
from basicsr_clsd.networks.branches import merge_branches
from basicsr_clsd.networks.check import first_output
from basicsr_clsd.networks.precision import autocast, replace

# torch's own compiler calls these for a CPU; torch has no public name for them.
OPERATORS = ('_convolution_pointwise', '_convolution_pointwise_', '_reorder_convolution_weight')
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
TOLERANCES = {'fp32': 1e-4, 'bf16': 0.05}  # in [0, 1]; what fails does so by more


class FusedConv2d(nn.Module):
    """A convolution by oneDNN for inference, whose weights are in the order that oneDNN likes best.

    ``nn.Conv2d`` converts and reorders weights in each call, and leaves bias, ReLU and sums to passes of their own
    over memory, which on a processor with AMX take longer than the products.

    Args:
        convolution: Its weights are copied.
        dtype: Of weights, features and output; products are summed in float32.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.geometry = [
            [int(side) for side in convolution.padding],
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        ]
        padding, stride, dilation, groups = self.geometry
        weight = convolution.weight.detach().to(dtype)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups)
        self.bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)

    def forward(self, x: Tensor, activation: str = 'none') -> Tensor:
        """Convolve (N, C, h, w); ``activation``: ``none`` or ``relu``."""
        operands = (self._prepared(x), self.weight, self.bias)
        return torch.ops.mkldnn._convolution_pointwise(*operands, *self.geometry, activation, [], '')

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the convolution of (N, C, h, w) to ``total``, of ``dtype``, in place."""
        operands = (total, self._prepared(x), self.weight, self.bias)
        binary = torch.ops.mkldnn._convolution_pointwise_.binary
        return binary(*operands, *self.geometry, 'add', None, None, [], None)

    def _prepared(self, x: Tensor) -> Tensor:
        return x.to(self.dtype, memory_format=torch.channels_last)


def fused(network: nn.Module, precision: str, lq: Tensor) -> nn.Module:
    """A copy of a network whose convolutions are fused; the network itself where that is not possible.

    Args:
        network: In ``eval``, on its device, its weights final; the copy shares those that stay as they are.
        precision: ``fp32`` or ``bf16``; what is to stay in full precision does.
        lq: Images to compare both on, (N, C, h, w): the operators are no promise of torch's.
    """
    available = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)
    devices = {value.device.type for value in network.parameters()}
    if not available or devices != {'cpu'} or precision not in DTYPES:
        return network
    copy = deepcopy(network, {id(value): value for value in (*network.parameters(), *network.buffers())})
    with torch.no_grad(), autocast(lq.device, precision):
        try:
            _fuse(copy, precision)
            found, wanted = (first_output(model(lq)).float() for model in (copy, network))
        except FAULTS:
            return network
    return copy if torch.allclose(found, wanted, rtol=0, atol=TOLERANCES[precision]) else network


def _fuse(network: nn.Module, precision: str) -> None:
    for module in list(merge_branches(network).modules()):
        if isinstance(module, nn.Conv2d) and module.padding_mode == 'zeros':
            dtype = torch.float32 if isinstance(module, FullPrecisionConv2d) else DTYPES[precision]
            replace(network, module, FusedConv2d(module, dtype))


def convolve_relu(convolution: Any, x: Tensor) -> Tensor:
    """ReLU of a convolution of (N, C, h, w)."""
    return convolution(x, 'relu') if isinstance(convolution, FusedConv2d) else convolution(x).relu_()


def add_convolved(total: Tensor, convolution: Any, x: Tensor, factor: float = 1) -> Tensor:
    """Add ``factor`` times a convolution of (N, C, h, w) to ``total``, in place."""
    if factor == 1 and isinstance(convolution, FusedConv2d):
        return convolution.add_to(total, x)
    made = convolution(x)
    return total.add_(made if factor == 1 else made.mul_(factor))
