"""Random patches of image pairs: where they lie, how they are augmented, and batches of them in 8 bits."""

from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[Any]  # uint8, or float32 in [0, 1] of more bits
FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}  # OpenCV's codes: left to right, top to bottom, both


class RandomNumbers(Protocol):
    """``random.Random``, or the module ``random``."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def randint(self, a: int, b: int) -> int:
        """A number from a to b, both included."""
        ...


class CropParams(NamedTuple):
    """A patch: its upper left corner in LR pixels, and how it is flipped and transposed, in this order."""

    top: int
    left: int
    hflip: bool
    vflip: bool
    transpose: bool


def draw_crop(numbers: RandomNumbers, lq_size: tuple[int, ...], side: int, hflip: bool, rotate: bool) -> CropParams:
    """Draw a patch with the random numbers, and in the order, of BasicSR's ``paired_random_crop`` and ``augment``.

    Args:
        numbers: Where random numbers come from.
        lq_size: (height, width) of the LR image, each at least ``side``.
        side: Side of the LR patch.
        hflip: Flip from left to right in half of the cases.
        rotate: Flip from top to bottom, and transpose, in half of the cases each.
    """
    return CropParams(
        top=numbers.randint(0, lq_size[0] - side),
        left=numbers.randint(0, lq_size[1] - side),
        hflip=hflip and numbers.random() < 0.5,  # noqa: PLR2004
        vflip=rotate and numbers.random() < 0.5,  # noqa: PLR2004
        transpose=rotate and numbers.random() < 0.5,  # noqa: PLR2004
    )


def augment(patch: Image, crop: CropParams) -> Image:
    """The patch flipped and transposed; what was passed in stays as it is, and is returned if nothing is to be done."""
    if crop.hflip or crop.vflip:
        patch = np.asarray(cv2.flip(patch, FLIPS[crop.hflip, crop.vflip]))
    return np.asarray(cv2.transpose(patch)) if crop.transpose else patch


class PatchBatch:
    """A batch of patches, RGB, uint8; each is to be put into its place.

    Args:
        memory: As many bytes as the patches have, in one dimension.
        side: Height and width of a patch.
        channels_last: Memory format: with the channels of a pixel side by side, or plane by plane.
    """

    def __init__(self, memory: Tensor, side: int, channels_last: bool) -> None:
        self.channels_last = channels_last
        self._memory = memory.view(-1, side, side, 3) if channels_last else memory.view(-1, 3, side, side)
        self._pixels = self._memory.numpy()

    def put(self, place: int, patch: Image) -> None:
        """Store a patch (side, side, 3), BGR, as the one of this number."""
        pixels = self._pixels[place]
        if self.channels_last:
            cv2.cvtColor(patch, cv2.COLOR_BGR2RGB, pixels)
        else:
            cv2.split(patch, [pixels[2], pixels[1], pixels[0]])

    def tensor(self) -> Tensor:
        """The batch (N, 3, side, side), a view of the memory."""
        return self._memory.permute(0, 3, 1, 2) if self.channels_last else self._memory
