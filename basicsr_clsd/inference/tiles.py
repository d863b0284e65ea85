"""Upscaling in overlapping tiles: the output of the whole image, with the memory of a tile."""

import errno
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from basicsr_clsd.errors import out_of_memory
from basicsr_clsd.inference.network import Network, Upscale
from basicsr_clsd.inference.transforms import BICUBIC_FIELD, Alpha, for_any_channels, self_ensemble
from basicsr_clsd.runtime.device import release_memory

Cut = Callable[[slice, slice], Tensor]  # rows and columns of an image to that part of it, (N, C, h, w)

SMALLEST_TILE = 16
UNBOUNDED_OVERLAP = 32  # for networks whose output depends on the whole image
BREADTH = 16  # of the strips by which a receptive field is found
LENGTHS = (64, 256, 1024)
MARKS = (float('nan'), 100.0)


class Part(NamedTuple):
    """A part of an upscaled image: its pixels (N, C, H, W), and the LR row and column where it begins."""

    top: int
    left: int
    pixels: Tensor


def upscale_in_tiles(lq: Tensor, upscale: Upscale, scale: int, tile: int, overlap: int, window: int = 1) -> Tensor:
    """Upscale an image tile by tile.

    An output pixel that no pixel beyond its tile's overlap has an influence on is that of the whole image, so with an
    overlap of the receptive field all are, up to the rounding of another shape of convolution.

    Args:
        lq: (N, C, h, w).
        upscale: Upscales a part of it.
        scale: Super-resolution factor s.
        tile: Side of what each tile contributes, in LR pixels.
        overlap: LR pixels around it that ``upscale`` sees beside, as far as the image goes.
        window: Tiles start at multiples of this many pixels, so that a transformer's windows stay where they are.

    Returns:
        (N, C, h·s, w·s).
    """
    return Tiles(upscale, scale, tile, overlap, window)(lq)


def tiled(  # noqa: PLR0913
    network: Network,
    name: str,
    tile: int | None,
    *,
    overlap: int | None = None,
    ensemble: bool = False,
    alpha: Alpha | None = None,
) -> 'Tiles':
    """A network for images of any size.

    Args:
        network: Upscales what fits into memory.
        name: Its name, for messages.
        tile: See :class:`Tiles`.
        overlap: See :class:`Tiles`; None: the receptive field.
        ensemble: Give the mean of the eight turned and mirrored images' outputs, in each tile.
        alpha: Take gray and transparent images too, see :func:`~basicsr_clsd.inference.transforms.for_any_channels`.
    """
    upscale = self_ensemble(network.upscale) if ensemble else network.upscale
    if alpha is not None:
        upscale = for_any_channels(upscale, network.scale, alpha, network.channels)
    if overlap is None and network.receptive_field is not None:
        overlap = max(network.receptive_field, BICUBIC_FIELD)
    return Tiles(upscale, network.scale, tile, overlap, network.window, name)


class Tiling(NamedTuple):
    """Tiles that an image was upscaled in.

    Args:
        tile: Their side in LR pixels.
        overlap: LR pixels that were seen around each.
        unbounded: The output depends on the whole image, so that tiles give another one.
    """

    tile: int
    overlap: int
    unbounded: bool


class Tiles:
    """An ``upscale`` that takes images of any size: in tiles, and in smaller ones when memory runs out.

    Args:
        upscale: Upscales what fits into memory.
        scale: Super-resolution factor.
        tile: Side of a tile in LR pixels; None: the whole image, as long as memory suffices.
        overlap: See :func:`upscale_in_tiles`; None: the receptive field, found out when it is first needed.
        window: See :func:`upscale_in_tiles`.
        name: Of the network, for messages.

    Raises:
        OSError: Memory does not suffice for the smallest tile, of 16 pixels and its overlap.
    """

    def __init__(  # noqa: PLR0913
        self,
        upscale: Upscale,
        scale: int,
        tile: int | None = None,
        overlap: int | None = None,
        window: int = 1,
        name: str = 'the network',
    ) -> None:
        self.upscale, self.scale, self.tile, self.overlap = upscale, scale, tile, overlap
        self.window, self.name = window, name
        self.unbounded = False
        self.used: Tiling | None = None  # the smallest that any image was upscaled in

    def __call__(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w) to (N, C, h·s, w·s), on the device of ``upscale``, or in tiles on that of ``lq``."""
        height, width = lq.shape[2:]
        output: Tensor | None = None
        for top, left, part in self.parts(lambda rows, columns: lq[:, :, rows, columns], height, width):
            if part.shape[2:] == (height * self.scale, width * self.scale):
                return part
            if output is None:
                output = part.new_empty(*part.shape[:2], height * self.scale, width * self.scale, device=lq.device)
            below, right = top * self.scale + part.shape[2], left * self.scale + part.shape[3]
            output[:, :, top * self.scale : below, left * self.scale : right] = part
        assert output is not None
        return output

    def parts(self, cut: Cut, height: int, width: int, rows: int | None = None) -> Iterator[Part]:
        """Upscale an image that need not be in memory as a tensor, and whose output need not be whole either.

        Args:
            cut: Gives the part (N, C, h, w) of an image in the given rows and columns.
            height: Rows of the whole image.
            width: Its columns.
            rows: Most LR rows of a tile; one that would have more is wider instead, so that what the network sees has
                the same area. None: tiles are square.

        Yields:
            The output, tile by tile: rows of tiles from top to bottom, each from left to right. When memory runs out, a
            row of tiles begins anew, with smaller ones.
        """
        side, top = max(height, width), 0
        while top < height:
            tile = side if self.tile is None else self.tile
            tall, wide = (tile, tile) if self.tile is None or rows is None else self._flat(tile, rows, cut)
            for left in range(0, width, wide):
                part = self._attempt(cut, (height, width), (top, left), (tall, wide))
                if part is None:
                    self._shrink(min(tile, side))
                    break
                yield Part(top, left, part)
                del part  # before the next one is made
            else:
                top += tall

    def _flat(self, tile: int, rows: int, cut: Cut) -> tuple[int, int]:
        """Height and width of a tile of so many rows at most."""
        if tile <= rows:
            return tile, tile
        seen = 2 * self.found_overlap(cut(slice(0, 1), slice(0, 1)).shape[1])
        return rows, (tile + seen) ** 2 // (rows + seen) - seen

    def _shrink(self, tile: int) -> None:
        if tile <= SMALLEST_TILE:
            raise OSError(errno.ENOMEM, f'not enough memory for tiles of {tile} pixels', self.name)
        # What did not fit once will not the next time.
        self.tile = max((tile + 1) // 2, SMALLEST_TILE)
        logging.getLogger('basicsr').warning(f'{self.name}: memory ran out; going on in tiles of {self.tile} pixels')

    def _attempt(
        self, cut: Cut, size: tuple[int, int], corner: tuple[int, int], tile: tuple[int, int]
    ) -> Tensor | None:
        """The output of one tile; None if memory ran out."""
        try:
            if tile[0] >= size[0] and tile[1] >= size[1]:
                return self.upscale(cut(slice(0, size[0]), slice(0, size[1])))
            overlap = self.found_overlap(cut(slice(0, 1), slice(0, 1)).shape[1])
            starts = [max(start - overlap, 0) // self.window * self.window for start in corner]
            ends = [
                min(start + length + overlap, whole) for start, length, whole in zip(corner, tile, size, strict=True)
            ]
            seen = self.upscale(cut(*map(slice, starts, ends)).contiguous())
            self.used = Tiling(min(tile), overlap, self.unbounded)
            rows, columns = (
                slice((start - before) * self.scale, (min(start + length, whole) - before) * self.scale)
                for start, before, length, whole in zip(corner, starts, tile, size, strict=True)
            )
            return seen[:, :, rows, columns]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Only here the error, and with it all that its frames held, is gone.
        release_memory()
        return None

    def found_overlap(self, channels: int) -> int:
        """The overlap that was asked for, or the receptive field's."""
        if self.overlap is None:
            self.overlap = receptive_field(self.upscale, self.scale, channels, self.window)
            if self.overlap is None:
                self.overlap, self.unbounded = UNBOUNDED_OVERLAP, True
                logging.getLogger('basicsr').warning(
                    f'{self.name}: its output depends on the whole image, so that tiles give another one; '
                    f'they overlap by {self.overlap} pixels (val.tile_overlap)'
                )
        return self.overlap


def receptive_field(upscale: Upscale, scale: int, channels: int = 3, window: int = 1) -> int | None:
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
        found = next(
            (r for r in (_distance(upscale, scale, channels, window, axis, n) for n in LENGTHS) if r >= 0), None
        )
        if found is None:
            return None
        reach = max(reach, found)
    return reach


def _distance(  # noqa: PLR0913
    upscale: Upscale, scale: int, channels: int, window: int, axis: int, length: int
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
