"""The trunk of a network: its longest chain of blocks whose output is like their input."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from basicsr_clsd.archs.probe import NetworkProbe
from basicsr_clsd.archs.taps import FEATURE_DIMS, INPUT, ROW_BY_ROW, as_map
from basicsr_clsd.errors import UserError

# Sides of the LR image in units of the trunk's: some networks fold the LR image, or an HR one, before the trunk.
FOLDS = (1, 2, 4)
WEIGHT_DIMS = 2
RANGE = re.compile(r'(\d+)-(\d+)(?:/([1-9]\d*))?')

EVENLY = 'evenly'
TapList = Sequence[str | Mapping[str, int]] | Mapping[str, int]

Sizes = tuple[torch.Size, torch.Size]


@dataclass
class Trunk:
    """A chain of blocks.

    Args:
        path: The container that they are in.
        blocks: Path of the first and of the last module of each block.
    """

    path: str
    blocks: list[tuple[str, str]]

    @property
    def entry(self) -> str:
        """The tap of what goes into the first block."""
        return self.blocks[0][0] + INPUT

    def boundaries(self, count: int) -> list[str]:
        """The taps of ``count`` features that cut the trunk into equal parts; of 3, after 4, 8 and 12 of 16 blocks."""
        total = len(self.blocks)
        return [self.blocks[-(-total * number // (count + 1)) - 1][1] for number in range(1, count + 1)]


def is_lr_sized(feature: torch.Size, image: torch.Size) -> bool:
    """Whether a feature (N, C, h, w) has an image's height and width, or those of the image folded into channels."""
    return len(feature) == FEATURE_DIMS and any(
        (feature[2] * fold, feature[3] * fold) == (image[2], image[3]) for fold in FOLDS
    )


def find_trunk(probed: NetworkProbe, where: str) -> Trunk:
    """Find the trunk: the outermost container with a chain of blocks; of several, the longest chain.

    A block is a module in an ``nn.Sequential`` or ``nn.ModuleList`` that makes a feature of the size and number of
    channels that it is given, of the LR image's height and width; activations that follow belong to it. One block alone
    is a chain only where there is no other.

    Raises:
        UserError: There is none; names ``where``, the key in the options.
    """
    trunks = [trunk for trunk in _chains(probed) if trunk.blocks]
    if not trunks:
        kind = type(probed.network).__name__
        raise UserError(f'{where}: no chain of blocks that keep the size of the LR image is in {kind}; give paths')
    return min(trunks, key=lambda trunk: (len(trunk.blocks) == 1, trunk.path.count('.'), -len(trunk.blocks)))


def _chains(probed: NetworkProbe) -> list[Trunk]:
    """The longest chain in each container."""
    network = probed.network
    containers = {
        path: module
        for path, module in network.named_modules()
        if path and isinstance(module, nn.Sequential | nn.ModuleList)
    }
    sizes: dict[str, Sizes] = {}
    grid = (probed.image.shape[2], probed.image.shape[3]) if isinstance(network, ROW_BY_ROW) else None

    def note(path: str, _: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        before, after = as_map(arguments[0] if arguments else None, grid), as_map(output, grid)
        if isinstance(before, Tensor) and isinstance(after, Tensor):
            sizes[path] = before.shape, after.shape

    children = {f'{path}.{name}': child for path, whole in containers.items() for name, child in whole.named_children()}
    handles = [child.register_forward_hook(partial(note, path)) for path, child in children.items()]
    try:
        probed.run()
    finally:
        for handle in handles:
            handle.remove()
    return [Trunk(path, _longest_chain(path, module, sizes, probed.image.shape)) for path, module in containers.items()]


def _longest_chain(
    path: str, container: nn.Module, sizes: dict[str, Sizes], image: torch.Size
) -> list[tuple[str, str]]:
    found: list[list[tuple[str, str]]] = [[]]
    for name, child in container.named_children():
        inner = f'{path}.{name}'
        before, after = sizes.get(inner, (None, None))
        if before is None or before != after or not is_lr_sized(before, image):
            found.append([])
        elif any(parameter.ndim >= WEIGHT_DIMS for parameter in child.parameters()):
            found[-1].append((inner, inner))
        elif found[-1]:  # an activation
            found[-1][-1] = found[-1][-1][0], inner
    return max(found, key=len)


def resolve(taps: TapList, where: str, probed: Callable[[], NetworkProbe]) -> list[str]:
    """The taps that an option means, by paths of modules; the one language of taps.

    ``body.3`` is the output of that module, ``body.3:input`` its input. ``body.3-11/4`` is every fourth from 3 to 11.
    ``{'evenly': T}`` are T boundaries between the blocks of the trunk, which cut it into T + 1 equal parts; it stands
    alone, or in a list beside others.

    Args:
        taps: What the option says.
        where: Its key, for errors.
        probed: Gives the network, run on a small image; it is called for ``evenly`` only.

    Raises:
        UserError: It is none of these.
    """
    entries = [taps] if isinstance(taps, Mapping) else taps
    if not isinstance(entries, list | tuple) or not entries or not all(isinstance(e, str | Mapping) for e in entries):
        raise UserError(f'{where}: must be a list of paths or {EVENLY}: a number of taps, not {taps!r}')
    found: list[str] = []
    for entry in entries:
        found += _range(entry, where) if isinstance(entry, str) else _evenly(entry, where, probed)
    return found


def _evenly(section: Mapping[str, int], where: str, probed: Callable[[], NetworkProbe]) -> list[str]:
    count = section.get(EVENLY)
    if list(section) != [EVENLY] or not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UserError(f'{where}: must be a list of paths or {EVENLY}: a number of taps, not {dict(section)!r}')
    trunk = find_trunk(probed(), f'{where}.{EVENLY}')
    if count > len(trunk.blocks):
        raise UserError(f"{where}.{EVENLY}: {count} are more than the {len(trunk.blocks)} blocks of '{trunk.path}'")
    return trunk.boundaries(count)


def _range(tap: str, where: str) -> list[str]:
    path, colon, kind = tap.partition(':')
    paths = ['']
    for part in path.split('.'):
        matched = RANGE.fullmatch(part)
        names = [part]
        if matched:
            names = [str(number) for number in range(int(matched[1]), int(matched[2]) + 1, int(matched[3] or 1))]
            if not names:
                raise UserError(f"{where}: '{tap}': the range {part} ends before it starts")
        paths = [f'{before}.{name}' if before else name for before in paths for name in names]
    return [path + colon + kind for path in paths]
