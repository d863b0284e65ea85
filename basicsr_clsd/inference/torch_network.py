"""A network of the registry as it is used: in a precision, in the memory format that is fastest, EDSR in stages."""

import math
from copy import deepcopy
from typing import Any

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn

from basicsr_clsd import registry
from basicsr_clsd.archs import LQ, student_of, taken_by
from basicsr_clsd.archs.windows import whole_windows, window_of
from basicsr_clsd.config.components import Component
from basicsr_clsd.conversion.source import SingleOutput, Source
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.merged_tail import MergedTail
from basicsr_clsd.inference.network import OUTPUT_TILE
from basicsr_clsd.inference.tiles import upscale_in_tiles
from basicsr_clsd.networks.branches import merge_branches
from basicsr_clsd.networks.check import (
    TRIAL_SIDE,
    channels_taken,
    check_output,
    first_output,
    parameter_count,
    placed,
    trial_image,
)
from basicsr_clsd.networks.fused import FusedConv2d, add_convolved, convolve_relu, fused
from basicsr_clsd.networks.origin import DECODER
from basicsr_clsd.networks.precision import autocast, keep_ends_fp32
from basicsr_clsd.runtime import cudnn

FLOPS_OF_A_MAC = 2
CPU = torch.device('cpu')
EDSR_TILE = 512  # its memory hardly depends on the scale
TAIL_TILE = 64  # LR pixels, whose features fit into a processor's cache ...
GPU_TAIL_TILE = 256  # ... and as many as keep a GPU busy
TAIL_FIELD = 2  # LR pixels: one for the upsampler's first convolution, less than one for all that follow


class TorchNetwork:
    """A network for use; see :class:`~basicsr_clsd.inference.network.Network`.

    Args:
        module: The network, with its weights; of one with heads the student is used. It is put into evaluation mode
            and moved.
        section: What it was built from.
        scale: Super-resolution factor s.
        channels: Of the images: 3, or 1 for luma; None: found out.
        precision: ``fp32``, ``tf32`` (TensorFloat-32 in convolutions, where a GPU has it, else fp32), ``bf16`` or
            ``fp16``; in the last two the first and the last convolution, the mean shift and the scaling to 255 stay in
            fp32.
        device: Where it computes.

    Raises:
        UserError: It cannot upscale such images, or by another factor.
    """

    def __init__(  # noqa: PLR0913
        self,
        module: nn.Module,
        section: Component,
        scale: int,
        *,
        channels: int | None = 3,
        precision: str = 'fp32',
        device: torch.device = CPU,
    ) -> None:
        self.section, self.arch = section, section.type
        self.tf32 = precision == 'tf32'
        self.scale, self.precision, self.device = scale, 'fp32' if self.tf32 else precision, device
        module = student_of(module)
        if taken_by(module) != LQ:
            raise UserError(
                f'network_g: {self.arch} is given HR images and upscales none; its decoder does, {DECODER}_*.pth'
            )
        self.parameters = parameter_count(module)
        self.module = placed(module.eval().requires_grad_(False), device, torch.channels_last)
        self._running, self._tail = self.module, None
        self.window = window_of(module)
        staged = isinstance(module, EDSR)
        self.receptive_field = edsr_receptive_field(module) if staged else None
        self.tile = EDSR_TILE if staged else math.ceil(OUTPUT_TILE / scale)
        with keep_ends_fp32(module):
            where = f'network_g: {self.arch}'
            if channels is not None:
                check_output(self.upscale, trial_image(channels), scale, where)
            self.channels = channels or channels_taken(self.upscale, scale, where)
        side = max(TRIAL_SIDE, self.window)
        draw = torch.Generator().manual_seed(0)
        running = fused(self.module, self.precision, torch.rand(1, self.channels, side, side, generator=draw))
        self._running = running
        if running is not self.module and isinstance(module, EDSR) and isinstance(running, EDSR):
            self._tail = MergedTail(module, running, scale)

    @torch.no_grad()
    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w) in [0, 1] to (N, C, h·s, w·s), float32, unclipped, on ``device``."""
        with autocast(self.device, self.precision), cudnn.inference(self.tf32):
            if isinstance(self._running, EDSR):
                lq = lq.to(self.device, memory_format=torch.channels_last)
                return upscale_in_stages(self._running, lq, self.scale, self._tail)
            return _upscale(self._running, lq.to(self.device), self.window, self.scale).float()

    def in_precision(self, precision: str) -> 'TorchNetwork':
        """The network in another precision, of the same weights."""
        if precision == self.precision:
            return self
        return TorchNetwork(
            self.module, self.section, self.scale, channels=self.channels, precision=precision, device=self.device
        )

    def source(self) -> Source:
        """The network as its arch builds it, for converters: on the CPU, in fp32."""
        module = registry.build('archs', self.section, 'network_g')
        module.load_state_dict(deepcopy(self.module.state_dict()))
        plain = merge_branches(module.cpu().eval().requires_grad_(False))
        return Source(self.arch, SingleOutput(plain), self.channels, self.window)

    def macs(self, shape: tuple[int, ...]) -> int | None:
        """Multiply-accumulates of convolutions and matrix products for an input of this shape; None: not known.

        Counted by ``torch.utils.flop_counter`` on tensors without content, so that nothing is computed.
        """
        # Imported here as they take a second, and photos are upscaled without.
        from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415
        from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415

        module = deepcopy(self.module)  # EDSR keeps, in its forward, a tensor that would have no content
        counter = FlopCounterMode(display=False)
        try:
            with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter:
                _upscale(module, torch.empty(shape, device=self.device), self.window, self.scale)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):  # an operator that needs content
            return None
        return counter.get_total_flops() // FLOPS_OF_A_MAC


def _upscale(module: nn.Module, lq: Tensor, window: int, scale: int) -> Tensor:
    sr = first_output(module(whole_windows(lq, window)))
    return sr[..., : lq.shape[2] * scale, : lq.shape[3] * scale]


def edsr_receptive_field(network: EDSR) -> int:
    """How far EDSR sees, in LR pixels: the convolutions before its upsampler, and those from there on."""
    return 2 * len(network.body) + 2 + TAIL_FIELD


def upscale_in_stages(network: EDSR, lq: Tensor, scale: int, merged: MergedTail | None = None) -> Tensor:
    """EDSR's output, its upsampler and last convolution applied to one part of the trunk's feature after the other.

    The upsampler's features have 4 to 32 times the values of the trunk's, and would decide on how large a tile can be;
    in parts they stay in the processor's cache instead.

    Args:
        network: In ``eval``.
        lq: (N, 3, h, w) in [0, 1].
        scale: The network's s.
        merged: The upsampler and the last convolution in one; None: as they are.

    Returns:
        (N, 3, h·s, w·s); that of ``network`` up to the rounding of another shape of convolution.
    """
    mean = network.mean.to(lq)
    last: Any = network.conv_after_body
    feature = network.conv_first((lq - mean) * network.img_range)
    if isinstance(last, FusedConv2d):
        feature = feature.to(last.dtype)
    feature = add_convolved(feature, last, _body(network, feature.clone()))

    def tail(part: Tensor) -> Tensor:
        return network.conv_last(network.upsample(part)).float()

    side = TAIL_TILE if lq.device.type == 'cpu' else GPU_TAIL_TILE
    sr = upscale_in_tiles(feature, tail, scale, side, TAIL_FIELD) if merged is None else merged(feature)
    return sr.div_(network.img_range).add_(mean)


def _body(network: EDSR, feature: Tensor) -> Tensor:
    """The residual blocks' output, in the place of their input; the bits are those of ``network.body``."""
    blocks: list[Any] = list(network.body)
    for block in blocks:
        add_convolved(feature, block.conv2, convolve_relu(block.conv1, feature), block.res_scale)
    return feature
