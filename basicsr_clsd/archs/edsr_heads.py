"""EDSR with auxiliary heads (the projection heads of CLSD)."""

from collections.abc import Mapping, Sequence

from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY

from basicsr_clsd.archs.heads import NONE, TRUNK, NetworkWithHeads
from basicsr_clsd.archs.trunk import TapList
from basicsr_clsd.errors import UserError

RGB_CHANNELS = 3


@ARCH_REGISTRY.register()
class EDSRHeads(NetworkWithHeads):
    """BasicSR's EDSR with auxiliary heads that exist in training only (CLSD, Moon et al., 2023, Fig. 2 and Table 1).

    The arguments of EDSR and four for its heads; :class:`NetworkWithHeads` says the rest. The student is initialised
    before the heads, so that with one seed an ``EDSR`` and the student in here start from the same weights.

    Args:
        num_in_ch: Channels of the input; 3, as the subtracted mean is that of RGB.
        num_out_ch: Channels of the output.
        num_feat: Channels C of the trunk and of the heads.
        num_block: Residual blocks B of the trunk.
        upscale: Super-resolution factor s, 3 or a power of two.
        res_scale: Factor on the residual branch of each block.
        img_range: The input is multiplied by this after subtracting the mean.
        rgb_mean: Mean of the training images, in [0, 1].
        head_taps: One head for each: a number of trunk blocks, 1 to B, after which it starts, or what
            :func:`~basicsr_clsd.archs.trunk.resolve` takes.
        head_num_block: Residual blocks of a head.
        head_share_tail: The heads use the student's upsampler and last convolution instead of their own.
        head_global_skip: Add the first convolution's feature to each head's before upscaling, as the student does.

    Raises:
        UserError: Begins with the argument that is wrong.
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
        head_taps: Sequence[int] | TapList = (4, 8, 12),
        head_num_block: int = 5,
        head_share_tail: bool = False,
        head_global_skip: bool = True,
    ) -> None:
        if num_in_ch != RGB_CHANNELS:
            raise ValueError(f'EDSR subtracts an RGB mean: num_in_ch must be 3, not {num_in_ch}')
        counts = [tap for tap in head_taps if isinstance(tap, int)]
        if len(set(counts)) != len(counts) or any(not 1 <= tap <= num_block for tap in counts):
            raise ValueError(f'head_taps must be distinct block counts from 1 to num_block={num_block}, not {counts}')
        if not isinstance(head_taps, Mapping):
            head_taps = [f'body.{tap - 1}' if isinstance(tap, int) else tap for tap in head_taps]
        student = EDSR(num_in_ch, num_out_ch, num_feat, num_block, upscale, res_scale, img_range, rgb_mean)  # pyright: ignore[reportArgumentType]
        head = {
            'num_feat': num_feat,
            'num_block': head_num_block,
            'res_scale': res_scale,
            'share_tail': head_share_tail,
        }
        try:
            super().__init__(student, head_taps, head, TRUNK if head_global_skip else NONE)
        except UserError as error:  # it begins with the argument's name there
            raise UserError(f'head_{error}') from error
