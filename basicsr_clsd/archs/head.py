"""One auxiliary head (the projection head of CLSD), for EDSR and for any other network."""

import torch
from basicsr.archs.arch_util import ResidualBlockNoBN, Upsample, make_layer
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn


class Head(nn.Module):
    """Residual blocks, a convolution, and (unless shared) its own upsampler and last convolution.

    CLSD, Moon et al., 2023, Fig. 2. Features of another width come in through a convolution of the head's own.

    Args:
        num_feat: Channels C of the head.
        num_block: Number of EDSR residual blocks.
        num_out_ch: Channels of the output image.
        upscale: Size of the output image in units of the tapped feature's, 3 or a power of two.
        res_scale: Factor on the residual branch of each block.
        share_tail: Leave out the upsampler and the last convolution; the student's are used.
        tap_channels: Channels of the tapped feature; default C.
        skip_channels: Channels of the feature that is added before upscaling; default C.
    """

    def __init__(  # noqa: PLR0913  (no section of options of its own: the two archs with heads name them differently)
        self,
        num_feat: int,
        num_block: int,
        num_out_ch: int,
        upscale: int,
        res_scale: float = 1.0,
        share_tail: bool = False,
        tap_channels: int | None = None,
        skip_channels: int | None = None,
    ) -> None:
        super().__init__()
        if tap_channels not in (None, num_feat):
            self.conv_first = nn.Conv2d(tap_channels, num_feat, 3, 1, 1)
        if skip_channels not in (None, num_feat):
            self.conv_skip = nn.Conv2d(skip_channels, num_feat, 1)
        self.body = make_layer(ResidualBlockNoBN, num_block, num_feat=num_feat, res_scale=res_scale, pytorch_init=True)
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        if not share_tail:
            self.upsample = Upsample(upscale, num_feat)
            self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, feature: Tensor, skip: Tensor | None) -> Tensor:
        """Refine a tapped feature to the feature (N, C, h, w) that a tail upscales.

        Args:
            feature: The tapped feature, (N, tap_channels, h, w).
            skip: Added at the end, (N, skip_channels, h, w); None: nothing is.
        """
        if 'conv_first' in self._modules:
            feature = self.conv_first(feature)
        refined = self.conv_after_body(self.body(feature))
        if skip is None:
            return refined
        return refined + (self.conv_skip(skip) if 'conv_skip' in self._modules else skip)


def to_image(feature: Tensor, tail: Head | EDSR, img_range: float, added: Tensor) -> Tensor:
    """Upscale a feature by a tail, to an image in [0, 1]; its last convolution is left out of autocast.

    Args:
        feature: The refined feature, (N, C, h, w).
        tail: Whose ``upsample`` and ``conv_last``: the head's own or the student's.
        img_range: What the last convolution makes is divided by this.
        added: Added to that, of a shape and type fit for it: the mean of the images, an upscaled image.
    """
    feature = tail.upsample(feature)
    with torch.autocast(feature.device.type, enabled=False):
        return tail.conv_last(feature.to(added.dtype)) / img_range + added
