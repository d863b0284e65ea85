"""How far a network sees."""

from collections.abc import Callable

import torch
from torch import Tensor

BREADTH = 16  # of the strips that are upscaled
LENGTHS = (64, 256, 1024)
MARKS = (float('nan'), 100.0)


def receptive_field(upscale: Callable[[Tensor], Tensor], scale: int, channels: int = 3, window: int = 1) -> int | None:
    """The largest distance, in LR pixels, over which an input pixel has an influence on an output pixel.

    One pixel of a strip is set to NaN, and the output pixels that it spreads to are looked at: unlike a change of the
    value it is neither stopped by a ReLU nor lost in rounding. A large value is tried as well, since some runtimes'
    ReLU turns a NaN into 0.

    Args:
        upscale: Upscales (1, C, h, w) to (1, C, h·s, w·s).
        scale: Super-resolution factor s.
        channels: C.
        window: Side of a transformer's attention windows, within which it depends on the place how far a pixel reaches.

    Returns:
        The distance along the axis where it is larger; None if it is more than can be told from a strip of 1024 pixels,
        as for a network that averages over the whole image.
    """
    reach = 0
    for axis in (2, 3):
        found = next((r for r in (_reach(upscale, scale, channels, window, axis, n) for n in LENGTHS) if r >= 0), None)
        if found is None:
            return None
        reach = max(reach, found)
    return reach


def _reach(  # noqa: PLR0913
    upscale: Callable[[Tensor], Tensor], scale: int, channels: int, window: int, axis: int, length: int
) -> int:
    """The distance along an axis (2 or 3); -1 if a strip of this length is too short to tell."""
    size = [1, channels, max(BREADTH, window), max(BREADTH, window)]
    size[axis] = max(length // window, 1) * window
    strip = torch.rand(size, generator=torch.Generator().manual_seed(0))
    plain = upscale(strip)
    reach = 0
    for place in {0, window // 2 - 1, window // 2, window - 1} - {-1}:
        centre = size[axis] // 2 // window * window + place
        for mark in MARKS:
            marked = strip.clone()
            marked.select(axis, centre).select(2, size[5 - axis] // 2)[:] = mark
            output = upscale(marked)
            changed = (output != plain).transpose(axis, -1).flatten(0, 2).any(0).nonzero() // scale
            if len(changed) == 0:
                continue
            first, last = int(changed.min()), int(changed.max())
            if first == 0 or last == size[axis] - 1:
                return -1
            reach = max(reach, centre - first, last - centre)
    return reach
