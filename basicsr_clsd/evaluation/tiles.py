"""Upscaling in overlapping tiles: the output of the whole image, with the memory of a tile."""

import errno
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from basicsr_clsd.errors import out_of_memory
from basicsr_clsd.evaluation.receptive_field import receptive_field

Upscale = Callable[[Tensor], Tensor]  # (N, C, h, w) in [0, 1] to (N, C, h·s, w·s)

SMALLEST_TILE = 16
UNBOUNDED_OVERLAP = 32  # for networks whose output depends on the whole image


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
    height, width = lq.shape[2:]
    output: Tensor | None = None
    for top, bottom in _parts(height, tile):
        for left, right in _parts(width, tile):
            above, before = (max(start - overlap, 0) // window * window for start in (top, left))
            part = upscale(lq[:, :, above : bottom + overlap, before : right + overlap].contiguous())
            if output is None:
                output = part.new_empty(*part.shape[:2], height * scale, width * scale)
            inner = part[:, :, (top - above) * scale : (bottom - above) * scale]
            inner = inner[..., (left - before) * scale : (right - before) * scale]
            output[:, :, top * scale : bottom * scale, left * scale : right * scale] = inner
    assert output is not None
    return output


def _parts(length: int, side: int) -> Iterator[tuple[int, int]]:
    """Start and end of each part of a length."""
    for start in range(0, length, side):
        yield start, min(start + side, length)


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
        """Upscale (N, C, h, w) to (N, C, h·s, w·s)."""
        side = max(lq.shape[2:])
        tile = side if self.tile is None else self.tile
        while (output := self._attempt(lq, tile)) is None:
            if tile <= SMALLEST_TILE:
                raise OSError(errno.ENOMEM, f'not enough memory for tiles of {tile} pixels', self.name)
            # What did not fit once will not the next time.
            self.tile = tile = max((min(tile, side) + 1) // 2, SMALLEST_TILE)
            logging.getLogger('basicsr').warning(f'{self.name}: memory ran out; going on in tiles of {tile} pixels')
        return output

    def _attempt(self, lq: Tensor, tile: int) -> Tensor | None:
        """The output; None if memory ran out."""
        try:
            if tile >= max(lq.shape[2:]):
                return self.upscale(lq)
            overlap = self.found_overlap(lq.shape[1])
            output = upscale_in_tiles(lq, self.upscale, self.scale, tile, overlap, self.window)
            self.used = Tiling(tile, overlap, self.unbounded)
            return output
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Only here the error, and with it all that its frames held, is gone.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
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
