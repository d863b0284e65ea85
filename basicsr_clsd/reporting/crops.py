"""Boxes in images: where to look, and what is in them."""

from typing import NamedTuple

import cv2
import numpy as np
from basicsr.metrics import calculate_psnr
from numpy.typing import NDArray

from basicsr_clsd.evaluation.metrics import Image

GRAY_PLANES = 2  # dimensions of a gray image


class Box(NamedTuple):
    """A part of an image in HR pixels, from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    def of(self, image: Image) -> Image:
        """That part of an image."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def most_detailed(image: Image, side: int) -> Box:
    """The square of an image (BGR) with the largest sum of gradient magnitudes."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return _heaviest(np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)), side, side)


def most_different(first: Image, second: Image, width: int, height: int) -> Box:
    """The box of a size in which two images (uint8, one shape) differ most: the largest sum of squared differences."""
    squares = (in_color(first).astype(np.float64) - in_color(second).astype(np.float64)) ** 2
    return _heaviest(squares.sum(2), width, height)


def _heaviest(values: NDArray[np.floating], width: int, height: int) -> Box:
    """The box with the largest sum of values (H, W); a side that the image is too small for is the whole of it."""
    width, height = min(width, values.shape[1]), min(height, values.shape[0])
    total = cv2.integral(values)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(np.argmax(sums), sums.shape)
    return Box(int(left), int(top), width, height)


def in_color(image: Image) -> Image:
    """An image as BGR, if it is gray."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR).astype(np.uint8) if image.ndim == GRAY_PLANES else image


def crop_psnr(crop: Image, gt: Image) -> float:
    """PSNR in dB on Y (BT.601) of a crop (BGR, uint8) against HR's, without a border cut off."""
    return float(calculate_psnr(crop, gt, crop_border=0, test_y_channel=True))
