"""Auxiliary heads (the projection heads of CLSD) for any registered super-resolution network."""

from collections.abc import Mapping
from typing import Any

import torch
from basicsr.archs.arch_util import ResidualBlockNoBN, Upsample, make_layer
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.archs.full_precision import FullPrecisionConv2d
from basicsr_clsd.archs.probe import NetworkProbe, interpolate, probe
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.archs.trunk import TapList, find_trunk, is_lr_sized, resolve
from basicsr_clsd.errors import UserError, suggest
from basicsr_clsd.registry import known

TRUNK, NONE = 'trunk', 'none'
HEAD = {'num_block': 5, 'num_feat': 64, 'res_scale': 1.0}  # CLSD, Table 1


class NetworkWithHeads(nn.Module):
    """A student and its auxiliary heads, which exist in training only (CLSD, Moon et al., 2023, Fig. 2).

    Head j: tapped feature -> residual blocks -> convolution, + global skip -> own upsampler -> own convolution,
    / range, + mean, and + the interpolated image where the student adds that. Scale, channels, mean and image are found
    by running the student on a small image; the range is its ``img_range``, 1 if it has none.

    In evaluation it is the student, bit for bit and at its cost. Its state dict has the student's parameters under the
    student's own keys, and those of the heads under ``heads.``.

    Args:
        student: The bare student.
        taps: Where the heads start; see :func:`WithHeads`.
        head: Arguments of :class:`Head` that can be chosen.
        global_skip: See :func:`WithHeads`.

    Attributes:
        student: The student.
        heads: Its heads, an ``nn.ModuleList``.

    Raises:
        UserError: Begins with the argument that is wrong.
        ValueError: A head cannot have the student's scale.
    """

    def __init__(self, student: nn.Module, taps: TapList, head: Mapping[str, Any], global_skip: str) -> None:
        super().__init__()
        probed = probe(student)
        features = FeatureTaps(student, _tap_paths(taps, probed), 'taps')
        skip = FeatureTaps(student, _skip_paths(global_skip, probed), 'global_skip')
        self.student = student
        self.heads = Heads(probed, features, skip, head)
        self.train()

    def forward(self, x: Tensor, with_heads: bool | None = None) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Upscale images (N, C, h, w) in [0, 1].

        Args:
            x: The images.
            with_heads: Run the heads too; by default in training and not in evaluation.

        Returns:
            The student's output SR, shape (N, C', h·s, w·s); with heads the pair (SR, [SR^1, ..., SR^T]) of the
            student's and the heads' outputs, all of one shape.
        """
        if not (self.training if with_heads is None else with_heads):
            return self.student(x)
        taps, tapped, skip, skipped = self.heads.taps, {}, self.heads.skip, {}
        taps.start(tapped, x)
        skip.start(skipped, x)
        try:
            sr = self.student(x)
        finally:
            taps.stop()
            skip.stop()
        return sr, self.heads(x, tapped, skipped, self.student)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """All weights, the student's under its own keys; see ``nn.Module.state_dict``."""
        prefix = kwargs.get('prefix', '')
        state = super().state_dict(*args, **kwargs)
        for key in list(state):
            # All are put back in their turn, so that their order stays.
            state[_renamed(key, f'{prefix}student.', prefix)] = state.pop(key)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what :meth:`state_dict` gave; see ``nn.Module.load_state_dict``."""
        state = {key if key.startswith('heads.') else f'student.{key}': value for key, value in state_dict.items()}
        return super().load_state_dict(state, strict, assign)


@ARCH_REGISTRY.register()
def WithHeads(  # noqa: N802  (a registered name; BasicSR calls it as it calls its classes)
    student: Mapping[str, Any],
    taps: TapList,
    head: Mapping[str, Any] | None = None,
    global_skip: str = TRUNK,
) -> NetworkWithHeads:
    """Build a registered network and put heads beside it; see :class:`NetworkWithHeads`.

    The student is initialised before the heads, so that with one seed the stock arch starts from the same weights.

    Args:
        student: ``type``, a registered arch, and its arguments.
        taps: One head for each; see :func:`~basicsr_clsd.archs.trunk.resolve`.
        head: ``num_block`` (5), ``num_feat`` (64) and ``res_scale`` (1) of the heads' residual blocks.
        global_skip: The feature that is added before upscaling: ``trunk``, what goes into the trunk's first block; a
            path as in ``taps``; or ``none``.

    Raises:
        UserError: Begins with the argument that is wrong.
        ValueError: The student, or a head for its scale, cannot be built; the student may raise others.
    """
    settings = _head_settings({} if head is None else head)
    return NetworkWithHeads(build_bare(student, 'student'), taps, settings, global_skip)


def _renamed(key: str, prefix: str, new: str) -> str:
    return new + key.removeprefix(prefix) if key.startswith(prefix) else key


class Heads(nn.ModuleList):
    """The heads of a network, and what they need of it.

    Args:
        probed: The student, run on a small image.
        taps: The student's features that the heads start from.
        skip: The feature that is added in all of them, or none.
        settings: Arguments of :class:`Head` that are chosen freely.
    """

    mean: Tensor

    def __init__(self, probed: NetworkProbe, taps: FeatureTaps, skip: FeatureTaps, settings: Mapping[str, Any]) -> None:
        self.scale, self.taps, self.skip = probed.scale, taps, skip
        self.img_range = float(getattr(probed.network, 'img_range', 1.0))
        with taps.trial(probed.image) as tapped, skip.trial(probed.image) as skipped:
            probed.run()
        features = [tapped[tap] for tap in taps.taps]
        skipped_channels = {feature.shape[1] for feature in skipped.values()}
        for tap, feature in {**tapped, **skipped}.items():
            where = 'taps' if tap in tapped else 'global_skip'
            if not is_lr_sized(feature.shape, probed.image.shape):
                raise UserError(
                    f"{where}: '{tap}' of {taps.kind} is {_size(feature)} for an LR image of {_size(probed.image)}; "
                    'tap a feature of its size'
                )
            if skipped and _size(feature) != _size(features[0]):
                raise UserError(
                    f"{where}: '{tap}' of {taps.kind} is {_size(feature)}, not {_size(features[0])} as others"
                )
        super().__init__(
            Head(
                num_out_ch=probed.sr.shape[1],
                upscale=probed.sr.shape[2] // feature.shape[2],
                tap_channels=feature.shape[1],
                skip_channels=next(iter(skipped_channels), None),
                **settings,
            )
            for feature in features
        )
        self.image_skip, mean = probed.residual_base()
        self.register_buffer('mean', mean, persistent=False)
        added = [*skip.taps, *([f'the {self.image_skip} image'] if self.image_skip else [])]
        self.description = f'{taps.kind} with heads at {", ".join(taps.taps)}' + (
            f', which add {" and ".join(added)}' if added else ''
        )

    def forward(
        self, image: Tensor, tapped: Mapping[str, Tensor], skipped: Mapping[str, Tensor], student: nn.Module
    ) -> list[Tensor]:
        """The heads' images (N, C, h·s, w·s), from the features of ``student`` for images (N, C, h, w)."""
        skip = next(iter(skipped.values()), None)
        base = self.mean
        if self.image_skip is not None:
            base = interpolate(image.to(self.mean.dtype), self.scale, self.image_skip) + self.mean
        head_srs = []
        for head, tap in zip(self, self.taps.taps, strict=True):
            assert isinstance(head, Head)
            tail = student if head.shares_tail else head
            head_srs.append(to_image(head(tapped[tap], skip), tail, self.img_range, base))
        return head_srs


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

    def __init__(  # noqa: PLR0913  (what can be chosen, and what the student decides)
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
        self.shares_tail = share_tail
        if tap_channels not in (None, num_feat):
            self.conv_first = nn.Conv2d(tap_channels, num_feat, 3, 1, 1)
        if skip_channels not in (None, num_feat):
            self.conv_skip = nn.Conv2d(skip_channels, num_feat, 1)
        self.body = make_layer(ResidualBlockNoBN, num_block, num_feat=num_feat, res_scale=res_scale, pytorch_init=True)
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        if not share_tail:
            self.upsample = Upsample(upscale, num_feat)
            self.conv_last = FullPrecisionConv2d(num_feat, num_out_ch, 3, 1, 1)

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


def to_image(feature: Tensor, tail: nn.Module, img_range: float, base: Tensor) -> Tensor:
    """Upscale a feature by a tail, to an image in [0, 1]; its last convolution is left out of autocast.

    Args:
        feature: The refined feature, (N, C, h, w).
        tail: Whose ``upsample`` and ``conv_last``: the head's own or the student's.
        img_range: What the last convolution makes is divided by this.
        base: Added to that: the mean of the images, or an upscaled image, in its type.
    """
    feature, conv_last = tail.get_submodule('upsample')(feature), tail.get_submodule('conv_last')
    with torch.autocast(feature.device.type, enabled=False):
        if not isinstance(conv_last, FullPrecisionConv2d):
            feature = feature.to(base.dtype)
        return conv_last(feature) / img_range + base


def _size(feature: Tensor) -> str:
    return f'{feature.shape[2]} x {feature.shape[3]}'


def build_bare(section: Mapping[str, Any], where: str) -> nn.Module:
    """Build the network, without heads, that another one contains in its argument ``where``; ``UserError`` names it."""
    archs = known('archs')
    if not isinstance(section, Mapping) or section.get('type') not in archs:
        raise UserError(f'{where}: must be a section with the type of a registered arch, not {section!r}')
    network = archs[section['type']](**{key: value for key, value in section.items() if key != 'type'})
    if isinstance(network, NetworkWithHeads):
        raise UserError(f'{where}.type: {section["type"]} has heads of its own')
    return network


def _head_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(section, Mapping):
        raise UserError(f'head: must be a section of {", ".join(HEAD)}, not {section!r}')
    for key, value in section.items():
        if key not in HEAD:
            raise UserError(f'head.{key}: no such key{suggest(str(key), HEAD)}; there are {", ".join(HEAD)}')
        number = isinstance(value, int if isinstance(HEAD[key], int) else int | float) and not isinstance(value, bool)
        if not number or value <= 0:
            raise UserError(f'head.{key}: must be a number above 0, not {value!r}')
    return {**HEAD, **section}


def _tap_paths(taps: TapList, probed: NetworkProbe) -> list[str]:
    paths = resolve(taps, 'taps', lambda: probed)
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"taps: '{path}' is there twice")
    return paths


def _skip_paths(wanted: str, probed: NetworkProbe) -> list[str]:
    if wanted == NONE:
        return []
    if wanted == TRUNK:
        return [find_trunk(probed, 'global_skip').entry]
    paths = resolve([wanted], 'global_skip', lambda: probed) if isinstance(wanted, str) else []
    if len(paths) != 1:
        raise UserError(f'global_skip: must be {TRUNK}, a path or {NONE}, not {wanted!r}')
    return paths
