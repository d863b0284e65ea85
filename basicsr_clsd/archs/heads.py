"""Auxiliary heads (the projection heads of CLSD) for any registered super-resolution network."""

from collections.abc import Mapping, Sequence
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_clsd.archs.head import Head, to_image
from basicsr_clsd.archs.probe import DryRun, dry_run, upscaled
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.archs.trunk import expand, find_trunk, is_lr_sized
from basicsr_clsd.errors import UserError, suggest
from basicsr_clsd.registry import known

EVENLY = 'evenly'
TRUNK, NONE = 'trunk', 'none'
HEAD = {'num_block': 5, 'num_feat': 64, 'res_scale': 1.0}  # CLSD, Table 1


@ARCH_REGISTRY.register()
def WithHeads(  # noqa: N802  (a registered name; BasicSR calls it as it calls its classes)
    student: Mapping[str, Any],
    taps: Sequence[str] | Mapping[str, int],
    head: Mapping[str, Any] | None = None,
    global_skip: str = TRUNK,
) -> nn.Module:
    """Build a network with auxiliary heads that exist in training only (CLSD, Moon et al., 2023, Fig. 2).

    It is the student's own class with ``heads`` beside its modules: the student's parameters have its own keys, the
    heads' are under ``heads.``; in ``eval()`` it is the stock arch, bit for bit and at its cost. The student is
    initialised before the heads, so that with one seed the stock arch starts from the same weights.

    Head j: tapped feature → residual blocks → convolution, + global skip → own upsampler → own convolution → / range,
    + mean, and + the interpolated image where the student adds that. Scale, channels, mean and image are found by
    running the student on a small image; the range is its ``img_range``, 1 if it has none. In ``train()`` the network
    gives, as does :class:`EDSRHeads`, the pair (SR, [SR^1, ..., SR^T]); images are (N, C, h, w) in [0, 1].

    Args:
        student: ``type``, a registered arch, and its arguments.
        taps: One head for each: paths of modules, whose output is tapped (``body.3``), or input (``body.4:input``);
            ranges are written out (``body.3-11/4``: every fourth from 3 to 11). Or ``{'evenly': T}``: T boundaries
            between the trunk's blocks.
        head: ``num_block`` (5), ``num_feat`` (64) and ``res_scale`` (1) of the heads' residual blocks.
        global_skip: The feature that is added before upscaling: ``trunk``, what goes into the trunk's first block; a
            path as in ``taps``; or ``none``.

    Raises:
        UserError: Begins with the argument that is wrong.
        ValueError: The student, or a head for its scale, cannot be built; the student may raise others.
    """
    network = _build_student(student)
    kind = type(network)
    settings = _head_settings({} if head is None else head)
    dry = dry_run(network)
    features = FeatureTaps(network, _tap_paths(taps, dry), 'taps')
    skip = FeatureTaps(network, _skip_paths(global_skip, dry), 'global_skip')
    # An instance of the student's class: what holds for the arch (its keys, the paths of its modules, ``isinstance``)
    # holds with heads.
    network.heads = Heads(dry, features, skip, settings)
    network.__class__ = type(f'{kind.__name__}WithHeads', (_WithHeads, kind), {})
    return network.train()


class Heads(nn.ModuleList):
    """The heads of a network, and what they need of it.

    Args:
        dry: The student's dry run.
        taps: The student's features that the heads start from.
        skip: The feature that is added in all of them, or none.
        settings: Arguments of :class:`Head` that are chosen freely.
    """

    mean: Tensor

    def __init__(self, dry: DryRun, taps: FeatureTaps, skip: FeatureTaps, settings: Mapping[str, Any]) -> None:
        self.scale, self.taps, self.skip = dry.scale, taps, skip
        self.img_range = float(getattr(dry.network, 'img_range', 1.0))
        with taps.trial(dry.image) as tapped, skip.trial(dry.image) as skipped:
            dry.run()
        features = [tapped[tap] for tap in taps.taps]
        skipped_channels = {feature.shape[1] for feature in skipped.values()}
        for tap, feature in {**tapped, **skipped}.items():
            where = 'taps' if tap in tapped else 'global_skip'
            if not is_lr_sized(feature.shape, dry.image.shape):
                raise UserError(
                    f"{where}: '{tap}' of {taps.kind} is {_size(feature)} for an LR image of {_size(dry.image)}; "
                    'tap a feature of its size'
                )
            if skipped and _size(feature) != _size(features[0]):
                raise UserError(
                    f"{where}: '{tap}' of {taps.kind} is {_size(feature)}, not {_size(features[0])} as others"
                )
        super().__init__(
            Head(
                num_out_ch=dry.sr.shape[1],
                upscale=dry.sr.shape[2] // feature.shape[2],
                tap_channels=feature.shape[1],
                skip_channels=next(iter(skipped_channels), None),
                **settings,
            )
            for feature in features
        )
        self.image_skip, mean = dry.added()
        self.register_buffer('mean', mean, persistent=False)
        added = [*skip.taps, *([f'the {self.image_skip} image'] if self.image_skip else [])]
        self.description = f'{taps.kind} with heads at {", ".join(taps.taps)}' + (
            f', which add {" and ".join(added)}' if added else ''
        )

    def forward(self, image: Tensor, tapped: Mapping[str, Tensor], skipped: Mapping[str, Tensor]) -> list[Tensor]:
        """The heads' images (N, C, h·s, w·s), from the student's features for images (N, C, h, w)."""
        skip = next(iter(skipped.values()), None)
        added = self.mean
        if self.image_skip is not None:
            added = upscaled(image.to(self.mean.dtype), self.scale, self.image_skip) + self.mean
        head_srs = []
        for head, tap in zip(self, self.taps.taps, strict=True):
            assert isinstance(head, Head)
            head_srs.append(to_image(head(tapped[tap], skip), head, self.img_range, added))
        return head_srs


class _WithHeads(nn.Module):
    """What a student's class becomes a network with heads by."""

    heads: Heads

    def forward(self, x: Tensor, with_heads: bool | None = None) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Upscale images (N, C, h, w) in [0, 1]; ``with_heads``: by default in ``train()`` and not in ``eval()``."""
        if not (self.training if with_heads is None else with_heads):
            return super().forward(x)
        taps, tapped, skip, skipped = self.heads.taps, {}, self.heads.skip, {}
        taps.start(tapped, x)
        skip.start(skipped, x)
        try:
            sr = super().forward(x)
        finally:
            taps.stop()
            skip.stop()
        return sr, self.heads(x, tapped, skipped)

    def student_state_dict(self) -> Mapping[str, Tensor]:
        """The student's parameters alone, under its own keys: loads strictly into its stock arch."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith('heads.')}


def _size(feature: Tensor) -> str:
    return f'{feature.shape[2]} x {feature.shape[3]}'


def _build_student(section: Mapping[str, Any]) -> nn.Module:
    archs = known('archs')
    if not isinstance(section, Mapping) or section.get('type') not in archs:
        raise UserError(f'student: must be a section with the type of a registered arch, not {section!r}')
    network = archs[section['type']](**{key: value for key, value in section.items() if key != 'type'})
    if hasattr(network, 'heads'):
        raise UserError(f'student.type: {section["type"]} has heads of its own')
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


def _tap_paths(taps: Sequence[str] | Mapping[str, int], dry: DryRun) -> list[str]:
    if isinstance(taps, Mapping):
        count = taps.get(EVENLY)
        if list(taps) != [EVENLY] or not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UserError(f'taps: must be a list of paths or {EVENLY}: a number of heads, not {dict(taps)!r}')
        trunk = find_trunk(dry, f'taps.{EVENLY}')
        if count > len(trunk.blocks):
            raise UserError(f"taps.{EVENLY}: {count} are more than the {len(trunk.blocks)} blocks of '{trunk.path}'")
        return trunk.boundaries(count)
    if not isinstance(taps, list | tuple) or not taps or not all(isinstance(tap, str) for tap in taps):
        raise UserError(f'taps: must be a list of paths or {EVENLY}: a number of heads, not {taps!r}')
    return expand(list(taps))


def _skip_paths(wanted: str, dry: DryRun) -> list[str]:
    if not isinstance(wanted, str):
        raise UserError(f'global_skip: must be {TRUNK}, a path or {NONE}, not {wanted!r}')
    if wanted == TRUNK:
        return [find_trunk(dry, 'global_skip').entry]
    return [] if wanted == NONE else [wanted]
