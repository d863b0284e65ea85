"""What upscales, whatever kind of file it is from."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Upscale = Callable[[Tensor], Tensor]  # (N, C, h, w) in [0, 1] to (N, C, h·s, w·s)

OUTPUT_TILE = 768  # side of a tile in pixels of the output, which decides on the memory of most networks


class Network(Protocol):
    """A network that is ready to run.

    Attributes:
        arch: Its registered name, or the kind of its file.
        scale: The super-resolution factor s.
        channels: Of the images that it takes: 3 (RGB), or 1 (luma).
        window: Side of a transformer's attention windows in LR pixels; 1: it has none.
        receptive_field: How far it sees, in LR pixels; None: not known.
        tile: Side in LR pixels of a part of an image that takes little memory.
        parameters: How many it has.
        device: Where it computes.
    """

    arch: str
    scale: int
    channels: int
    window: int
    receptive_field: int | None
    tile: int
    device: torch.device

    @property
    def parameters(self) -> int: ...  # noqa: D102

    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w) in [0, 1] to (N, C, h·s, w·s), float32, unclipped, on ``device``.

        A GPU is not waited for.
        """
        ...

    def macs(self, shape: tuple[int, ...]) -> int | None:
        """Multiply-accumulates of convolutions and matrix products for an input of this shape; None: not known."""
        ...
