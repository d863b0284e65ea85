"""How an LR image was made from its HR image: by MATLAB's bicubic, as the field has it, or by what else."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from basicsr_clsd.images.matlab_resize import matlab_resize

Shrink = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]

REACH = 2  # LR pixels: nearer to the border, MATLAB's bicubic depends on what is beyond it
ODD_ROUNDING = 1e-3  # of the values may differ by 1: halves that another order of summation rounds differently
WINDOW = 160  # LR pixels: enough to tell kernels apart
MARGIN = 8  # LR pixels at the border of the window, beyond the reach of all kernels
TIE = 1.02  # kernels whose differences are that close cannot be told apart
SAME = 0.6  # 8-bit levels of mean difference: versions of a library differ by less, kernels by more


class Likeness(NamedTuple):
    """Which known kernels an LR image looks made by, and how far it is from that.

    Args:
        kernels: Names, more than one if they give the same for this image.
        difference: Mean absolute difference in 8-bit levels.
        matlab: That of MATLAB's bicubic.
    """

    kernels: tuple[str, ...]
    difference: float
    matlab: float

    def __str__(self) -> str:
        names = ' or '.join(self.kernels)
        if self.difference > SAME:
            return (
                f'made by no known kernel, or changed afterwards, as by JPEG, noise or a shift; nearest is {names}, '
                f'mean difference {self.difference:.2f}'
            )
        return f"looks like {names}, mean difference {self.difference:.2f} (from MATLAB's bicubic {self.matlab:.2f})"


def is_matlab_bicubic(hr: NDArray[np.uint8], lr: NDArray[np.uint8], scale: int) -> bool:
    """Whether LR is MATLAB's bicubic of HR.

    Two LR pixels at the border do not count where they are otherwise: there MATLAB's older and newer rule differ, and
    in sub-images they come from HR pixels outside.

    Args:
        hr: (H * scale, W * scale, 3), uint8.
        lr: (H, W, 3), uint8.
        scale: Super-resolution factor.
    """
    difference = np.abs(matlab_resize(hr, 1 / scale).astype(np.int16) - lr)
    inner = difference[REACH:-REACH, REACH:-REACH]
    inner = inner if inner.size else difference
    return int(inner.max()) <= 1 and float((inner != 0).mean()) <= ODD_ROUNDING


def nearest_kernels(hr: NDArray[np.uint8], lr: NDArray[np.uint8], scale: int) -> Likeness:
    """Compare LR with what all known kernels make of HR, in its middle; arguments as :func:`is_matlab_bicubic`."""
    top, left = (max(side - WINDOW, 0) // 2 for side in lr.shape[:2])
    part = lr[top : top + WINDOW, left : left + WINDOW]
    hr_part = hr[top * scale : (top + WINDOW) * scale, left * scale : (left + WINDOW) * scale]
    margin = MARGIN if min(part.shape[:2]) > 3 * MARGIN else 0

    def difference(shrink: Shrink) -> float:
        values = np.abs(shrink(hr_part, scale).astype(np.int16) - part)
        return float(values[margin : values.shape[0] - margin, margin : values.shape[1] - margin].mean())

    differences = {name: difference(shrink) for name, shrink in KERNELS.items()}
    least = min(differences.values())
    nearest = tuple(name for name, value in differences.items() if value <= least * TIE)
    return Likeness(nearest, least, differences[MATLAB])


def _opencv(interpolation: int) -> Shrink:
    def shrink(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        size = (hr.shape[1] // scale, hr.shape[0] // scale)
        return cv2.resize(hr, size, interpolation=interpolation).astype(np.uint8, copy=False)

    return shrink


def _pillow(resampling: Image.Resampling) -> Shrink:
    def shrink(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(hr).resize((hr.shape[1] // scale, hr.shape[0] // scale), resampling))

    return shrink


def _rounded_once(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    values = matlab_resize(hr.astype(np.float64), 1 / scale, border='symmetric')
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _blurred(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return cv2.GaussianBlur(hr, (7, 7), 1.6)[scale // 2 :: scale, scale // 2 :: scale].astype(np.uint8, copy=False)


MATLAB = "MATLAB's bicubic"
ROUNDED_ONCE = "bicubic rounded once (BasicSR's imresize, torch's with antialias)"
KERNELS: dict[str, Shrink] = {
    MATLAB: lambda hr, scale: matlab_resize(hr, 1 / scale),
    ROUNDED_ONCE: _rounded_once,
    "MATLAB's bicubic without antialiasing": lambda hr, scale: matlab_resize(hr, 1 / scale, antialias=False),
    "MATLAB's bicubic with red and blue swapped": lambda hr, scale: matlab_resize(hr[..., ::-1], 1 / scale),
    "OpenCV's INTER_CUBIC": _opencv(cv2.INTER_CUBIC),
    "OpenCV's INTER_AREA": _opencv(cv2.INTER_AREA),
    "OpenCV's INTER_LINEAR": _opencv(cv2.INTER_LINEAR),
    "OpenCV's INTER_LANCZOS4": _opencv(cv2.INTER_LANCZOS4),
    "OpenCV's INTER_NEAREST": _opencv(cv2.INTER_NEAREST),
    "Pillow's BICUBIC": _pillow(Image.Resampling.BICUBIC),
    "Pillow's LANCZOS": _pillow(Image.Resampling.LANCZOS),
    "Pillow's BILINEAR": _pillow(Image.Resampling.BILINEAR),
    "Pillow's HAMMING": _pillow(Image.Resampling.HAMMING),
    "Pillow's BOX": _pillow(Image.Resampling.BOX),
    "Pillow's NEAREST": _pillow(Image.Resampling.NEAREST),
    'a Gaussian blur (7x7, sigma 1.6) and every n-th pixel': _blurred,
}
