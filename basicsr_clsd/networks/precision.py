"""Mixed precision that keeps what decides on an image's last bits in float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from basicsr.archs.ecbsr_arch import ECB
from torch import Tensor, nn

from basicsr_clsd.archs.full_precision import FullPrecisionConv2d

DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context for a network's forward in a precision: ``fp32``, ``bf16`` or ``fp16``."""
    return nullcontext() if precision == 'fp32' else torch.autocast(device.type, DTYPES[precision])


class FullPrecisionECB(ECB):
    """ECBSR's block of convolutions, which uses their weights without calling them, in the precision of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.conv3x3.weight.dtype))


FULL_PRECISION = {nn.Conv2d: FullPrecisionConv2d, ECB: FullPrecisionECB}


@contextmanager
def keep_ends_fp32(network: nn.Module) -> Iterator[None]:
    """Keep the convolutions that run first and last within the context out of autocast from then on.

    They see and make pixels: bfloat16 has 8 bits of mantissa, no more than the pixels themselves, and super-resolution
    networks have no normalisation that would make up for the rounding. Of a network that names its ``image_stages``,
    modules between which there are images, those of each are kept. Keys of weights stay as they are.
    """
    if stages := getattr(network, 'image_stages', ()):
        with ExitStack() as stack:
            for stage in stages:
                stack.enter_context(keep_ends_fp32(stage))
            yield
        return
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
            replace(network, module, share(module, FULL_PRECISION[type(module)]))


def share(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A module of another class that shares the parameters, the modules and the hooks of one."""
    made = kind.__new__(kind)
    vars(made).update(vars(module))
    return made


def replace(network: nn.Module, module: nn.Module, by: nn.Module) -> None:
    """Put another module in a module's place, wherever the network has it."""
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is module:
                setattr(parent, name, by)
