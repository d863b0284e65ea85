"""EDSR with auxiliary heads (the projection heads of CLSD)."""

from collections.abc import Mapping, Sequence

import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.archs.head import Head, to_image

RGB_CHANNELS = 3


@ARCH_REGISTRY.register()
class EDSRHeads(EDSR):
    """BasicSR's EDSR with auxiliary heads that exist in training only (CLSD, Moon et al., 2023, Fig. 2 and Table 1).

    The student's parameters have EDSR's own keys, the heads' are under ``heads.``; in ``eval()`` the network is EDSR,
    bit for bit and at its cost. The student is initialised before the heads, so that with one seed an ``EDSR`` and the
    student in here start from the same weights.

    The pixel range of input and outputs is [0, 1], RGB. Under autocast the first and the last convolutions run in the
    precision of their weights, as they set that of the output.

    Args:
        num_in_ch: Channels of the input; 3, as the subtracted mean is that of RGB.
        num_out_ch: Channels of the output.
        num_feat: Channels C of the trunk and of the heads.
        num_block: Residual blocks B of the trunk.
        upscale: Super-resolution factor s, 3 or a power of two.
        res_scale: Factor on the residual branch of each block.
        img_range: The input is multiplied by this after subtracting the mean.
        rgb_mean: Mean of the training images, in [0, 1].
        head_taps: One head per entry: its input is the feature after that many trunk blocks, 1 to B.
        head_num_block: Residual blocks of a head.
        head_share_tail: The heads use the student's upsampler and last convolution instead of their own.
        head_global_skip: Add the first convolution's feature to each head's before upscaling, as the student does.

    Raises:
        ValueError: A tap is outside 1 to ``num_block`` or named twice, or ``num_in_ch`` is not 3.
    """

    def __init__(  # noqa: PLR0913  (EDSR's own arguments and four for the heads; no **kwargs, so that a typo fails)
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: int = 4,
        res_scale: float = 1.0,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
        *,
        head_taps: Sequence[int] = (4, 8, 12),
        head_num_block: int = 5,
        head_share_tail: bool = False,
        head_global_skip: bool = True,
    ) -> None:
        if num_in_ch != RGB_CHANNELS:
            raise ValueError(f'EDSR subtracts an RGB mean: num_in_ch must be 3, not {num_in_ch}')
        taps = tuple(head_taps)
        if len(set(taps)) != len(taps) or any(not 1 <= tap <= num_block for tap in taps):
            raise ValueError(f'head_taps must be distinct block counts from 1 to num_block={num_block}, not {taps}')
        super().__init__(num_in_ch, num_out_ch, num_feat, num_block, upscale, res_scale, img_range, rgb_mean)  # pyright: ignore[reportArgumentType]
        mean = self.mean
        del self.mean
        # Not persistent: EDSR keeps the mean out of its state dict, and the student's keys are EDSR's.
        self.register_buffer('mean', mean, persistent=False)
        self.head_taps = taps
        self.head_global_skip = head_global_skip
        self.head_share_tail = head_share_tail
        self.heads = nn.ModuleList(
            Head(num_feat, head_num_block, num_out_ch, upscale, res_scale, head_share_tail) for _ in taps
        )

    def forward(self, x: Tensor, with_heads: bool | None = None) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Upscale images (N, 3, h, w) in [0, 1].

        Args:
            x: The images.
            with_heads: Run the heads too; by default in ``train()`` and not in ``eval()``.

        Returns:
            The student's output SR, shape (N, num_out_ch, h·s, w·s); with heads the pair (SR, [SR^1, ..., SR^T]) of
            the student's and the heads' outputs, all of one shape.
        """
        if not (self.training if with_heads is None else with_heads):
            return self._student(x)[0]
        sr, first, tapped = self._student(x, tap=True)
        head_srs = []
        for head, feature in zip(self.heads, tapped, strict=True):
            assert isinstance(head, Head)
            refined = head(feature, first if self.head_global_skip else None)
            tail = self if self.head_share_tail else head
            head_srs.append(to_image(refined, tail, self.img_range, self.mean))
        return sr, head_srs

    def _student(self, x: Tensor, tap: bool = False) -> tuple[Tensor, Tensor, list[Tensor]]:
        """EDSR's forward: the output, the first convolution's feature, and the tapped features in the heads' order."""
        with torch.autocast(x.device.type, enabled=False):
            first = self.conv_first((x.to(self.mean.dtype) - self.mean) * self.img_range)
        feature = first
        after_block = {}
        for count, block in enumerate(self.body, start=1):
            feature = block(feature)
            if tap and count in self.head_taps:
                after_block[count] = feature
        sr = to_image(self.conv_after_body(feature) + first, self, self.img_range, self.mean)
        return sr, first, [after_block[count] for count in self.head_taps] if tap else []

    def student_state_dict(self) -> Mapping[str, Tensor]:
        """The student's parameters alone, under EDSR's keys: loads strictly into BasicSR's ``EDSR``."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith('heads.')}
