"""A network of the registry as it is used: in a precision, in the memory format that is fastest, EDSR in stages."""

from collections.abc import Mapping
from typing import Any

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor

from basicsr_clsd.config import Options
from basicsr_clsd.inference.edsr_stages import reach, upscale_in_stages
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.models.stepper import autocast


class DeployedNetwork(TorchNetwork):
    """``network_g`` with the weights of ``path.pretrain_network_g``, for use and not for measuring what it costs.

    Args:
        options: Checked options, without ``train``.
        precision: ``fp32``, ``bf16`` or ``fp16``; the first and the last convolution, the mean shift and the scaling to
            255 stay in fp32.

    Raises:
        UserError: See :class:`TorchNetwork`.
    """

    def __init__(self, options: Options, precision: str = 'fp32') -> None:
        super().__init__(options)
        self.scale, self.precision = options.scale, precision
        self.arguments: Mapping[str, Any] = options.network_g.as_dict()
        self.module = self.model.net_g.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.staged = isinstance(self.module, EDSR)  # its memory then hardly depends on the scale
        self.reach = reach(self.module) if isinstance(self.module, EDSR) else None

    @torch.no_grad()
    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, 3, h, w) in [0, 1] to (N, 3, h·s, w·s), float32, unclipped, on the CPU."""
        with autocast(self.device, self.precision):
            if isinstance(self.module, EDSR):
                lq = lq.to(self.device, memory_format=torch.channels_last)
                return upscale_in_stages(self.module, lq, self.scale).cpu()
            return self.model.upscale(lq)[0].float()
