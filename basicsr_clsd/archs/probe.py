"""What a super-resolution network of any arch makes of images, found out by running it on a small one."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from basicsr_clsd.archs.windows import window_of
from basicsr_clsd.errors import FAULTS, UserError, first_line

SHORTEST_SIDE = 8
CHANNELS = (3, 1)  # RGB; luma
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic')
TOLERANCE = 1e-5


@dataclass
class NetworkProbe:
    """A network and the small image that it was run on.

    Args:
        network: The network.
        image: The image (1, C, h, w) in [0, 1], not square.
        sr: The network's output, (1, C', h·s, w·s).
    """

    network: nn.Module
    image: Tensor
    sr: Tensor

    @property
    def scale(self) -> int:
        """The super-resolution factor s."""
        return self.sr.shape[2] // self.image.shape[2]

    def run(self) -> None:
        """Run the network once more, in evaluation mode, which leaves its random numbers and statistics alone."""
        _upscale(self.network, self.image)

    @torch.no_grad()
    def residual_base(self) -> tuple[str | None, Tensor]:
        """What the network adds to the output of its last layer: its output when all trained weights are 0.

        Returns:
            The mode of ``F.interpolate`` by which it upscales the image that it adds (None: it adds none), and the mean
            that it adds, (1, C', 1, 1). Anything else counts as nothing.
        """
        trained = {name: value for name, value in self.network.named_parameters() if value.requires_grad}
        zeros = {name: torch.zeros_like(value) for name, value in trained.items()}
        base = functional_call(self.network, zeros, (self.image,))
        for mode in (None, *INTERPOLATIONS):
            if mode is not None and self.image.shape[1] != base.shape[1]:
                continue
            rest = base if mode is None else base - interpolate(self.image, self.scale, mode)
            mean = rest[:, :, :1, :1]
            if (rest - mean).abs().max() <= TOLERANCE:
                return mode, mean * (mean.abs() > TOLERANCE)
        return None, torch.zeros(1, base.shape[1], 1, 1)


def probe(network: nn.Module) -> NetworkProbe:
    """Run a network on a small image, RGB or luma, whichever it takes; it is left in evaluation mode.

    Raises:
        UserError: It upscales neither, or is not one that makes an image s times the size.
    """
    window, kind = window_of(network), type(network).__name__
    side = window * -(-SHORTEST_SIDE // window)
    device = next((value.device for value in network.parameters()), torch.device('cpu'))
    network.eval()
    reasons = []
    for channels in CHANNELS:
        # Not from torch's own generator: the heads' weights must not depend on the probe.
        image = torch.rand(1, channels, 2 * side, 3 * side, generator=torch.Generator().manual_seed(0)).to(device)
        try:
            sr = _upscale(network, image)
        except FAULTS as error:
            reasons.append(first_line(error))
            continue
        height, width = image.shape[2:]
        scale = sr.shape[2] // height if isinstance(sr, Tensor) and sr.ndim == image.ndim else 0
        if scale == 0 or sr.shape[2:] != (height * scale, width * scale):
            made = f'{tuple(sr.shape)}' if isinstance(sr, Tensor) else type(sr).__name__
            raise UserError(
                f'student: {kind} makes {made} of an image {tuple(image.shape)}, no image some times the size'
            )
        return NetworkProbe(network, image, sr)
    raise UserError(f'student: {kind} cannot upscale an image: {reasons[0]}')


@torch.no_grad()
def _upscale(network: nn.Module, image: Tensor) -> Tensor:
    return network(image)


def interpolate(image: Tensor, scale: int, mode: str) -> Tensor:
    """Upscale images (N, C, h, w) as networks do that learn the rest."""
    corners = None if mode == 'nearest' else False
    return F.interpolate(image, scale_factor=float(scale), mode=mode, align_corners=corners)
