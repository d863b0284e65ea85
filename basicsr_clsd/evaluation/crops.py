"""Crops that compare methods by eye: where to look in an image, and a picture of several."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from basicsr.metrics import calculate_psnr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from basicsr_clsd.evaluation.metrics import Image
from basicsr_clsd.runtime.files import write_bytes

GRAY_PLANES = 2  # dimensions of a gray image
CROP = 64  # side of a crop in HR pixels
MOST_IMAGES = 4


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


class CropSheet:
    """Crops of several images, one row each: every method's and HR, with the crop's PSNR on Y."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, dict[str, Image], Image]] = []

    @classmethod
    def joined(cls, parts: Sequence['CropSheet'], names: Sequence[str]) -> 'CropSheet':
        """The rows of several as one, in the order of ``names``."""
        whole = cls()
        rows = sorted((row for part in parts for row in part._rows), key=lambda row: names.index(row[0]))
        whole._rows = rows[:MOST_IMAGES]
        return whole

    def add(self, name: str, outputs: dict[str, Image], gt: Image) -> None:
        """Add a row, up to four: the crop of the image that has the most detail in HR.

        Args:
            name: Shown beside the row.
            outputs: By method, BGR uint8 of HR's shape.
            gt: HR, BGR uint8.
        """
        if len(self._rows) < MOST_IMAGES:
            gt, outputs = in_color(gt), {method: in_color(image) for method, image in outputs.items()}
            box = most_detailed(gt, CROP)
            self._rows.append((name, {method: box.of(image) for method, image in outputs.items()}, box.of(gt)))

    def write(self, path: Path) -> None:
        """Draw the rows and write a PNG."""
        columns = len(self._rows[0][1]) + 1
        figure = Figure(figsize=(2.4 * columns, 2.7 * len(self._rows)), dpi=100, layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(self._rows), columns, squeeze=False)
        for row, (name, crops, gt) in zip(axes, self._rows, strict=True):
            row[0].set_ylabel(name)
            for axis, (method, crop) in zip(row, [*crops.items(), ('HR', gt)], strict=True):
                axis.imshow(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), interpolation='nearest')
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_title(method if crop is gt else f'{method}  {crop_psnr(crop, gt):.2f} dB', fontsize=9)
        content = io.BytesIO()
        figure.savefig(content, format='png')
        write_bytes(content.getvalue(), path)
