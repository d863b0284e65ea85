"""A teacher as small as its student, that knows more: it is given the HR image."""

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.archs.heads import build_bare
from basicsr_clsd.archs.probe import probe
from basicsr_clsd.archs.windows import window_of
from basicsr_clsd.errors import UserError

WIDE, NARROW = 56, 12  # channels of the encoder
LQ, GT = 'lq', 'gt'  # which image of a pair a network is given


@ARCH_REGISTRY.register()
class PrivilegedTeacher(nn.Module):
    """Encoder and decoder of PISR (Lee et al., ECCV 2020): HR -> a feature image of LR's size -> SR.

    The decoder is a super-resolution network, the student's own arch. Encoder E: convolution 5x5 to 56 channels, 5x5 of
    stride s, 3x3 to 12, 3x3 to the image's channels, with PReLU between them.

    Args:
        decoder: ``type``, a registered arch, and its arguments.
        scale: Super-resolution factor s.

    Raises:
        UserError: Begins with the argument that is wrong.
    """

    takes = GT

    def __init__(self, decoder: Mapping[str, Any], scale: int) -> None:
        super().__init__()
        self.decoder = build_bare(decoder, 'decoder')  # first, so that it starts as the bare arch does from one seed
        probed = probe(self.decoder)
        if probed.scale != scale:
            raise UserError(f'decoder: {decoder["type"]} has the scale {probed.scale}, not {scale}')
        channels = probed.image.shape[1]
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, WIDE, 5, padding=2),
            nn.PReLU(),
            nn.Conv2d(WIDE, WIDE, 5, stride=scale, padding=2),
            nn.PReLU(),
            nn.Conv2d(WIDE, NARROW, 3, padding=1),
            nn.PReLU(),
            nn.Conv2d(NARROW, channels, 3, padding=1),
        )
        self.window_size = window_of(self.decoder) * scale  # HR images are of whole LR pixels
        self.train()

    @property
    def image_stages(self) -> tuple[nn.Module, nn.Module]:
        """The parts that take and make images."""
        return self.encoder, self.decoder

    def forward(self, hr: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Encode HR images (N, C, h·s, w·s) in [0, 1] and upscale what that gives.

        Returns:
            SR, (N, C, h·s, w·s); in ``train()`` the pair (SR, E(HR)), the latter (N, C, h, w), an image about [0, 1].
        """
        encoded = self.encoder(hr)
        sr = self.decoder(encoded)
        return (sr, encoded) if self.training else sr


def taken_by(network: nn.Module) -> str:
    """Which image of a pair a network is given: ``lq``, or ``gt`` if it says so."""
    return getattr(network, 'takes', LQ)
