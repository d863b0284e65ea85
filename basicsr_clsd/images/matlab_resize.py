"""MATLAB's ``imresize(..., 'bicubic')``, with which the field makes its LR images."""

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Border = Literal['replicate', 'symmetric']
SUPPORT = 4.0  # width of the cubic kernel in samples
A = -0.5  # Keys' cubic convolution
BLOCK = 192  # values of a row that are resized at a time; a power of two would have its rows share cache lines
MOST_CHANNELS = 4
COLOUR = 3  # dimensions of an image with channels


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = (A + 2) * x**3 - (A + 3) * x**2 + 1
    far = A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))  # noqa: PLR2004  (the kernel's two pieces)


@lru_cache(maxsize=64)
def resize_matrix(length: int, out_length: int, scale: float, antialias: bool, border: Border) -> csr_array:
    """The matrix (out_length, length) that resizes a column, its entries in MATLAB's order of summation.

    A pixel that stands for several at the border has an entry for each: their sum would round differently.
    """
    stretch = min(scale, 1.0) if antialias else 1.0
    width = SUPPORT / stretch
    # Sample centres: MATLAB counts from 1, so output u sits at u/s + (1 - 1/s)/2 of the input.
    centre = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - width / 2)
    index = left[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = stretch * _cubic(stretch * (centre[:, None] - index))
    weights /= weights.sum(axis=1, keepdims=True)
    index = index.astype(np.int32) - 1
    if border == 'replicate':
        index = np.clip(index, 0, length - 1)
    else:
        index = np.mod(index, 2 * length)
        index = np.where(index < length, index, 2 * length - 1 - index)
    used = np.any(weights != 0, axis=0)
    starts = np.arange(out_length + 1, dtype=np.int32) * int(used.sum())
    return csr_array((weights[:, used].ravel(), index[:, used].ravel(), starts), shape=(out_length, length))


def _resized_rows(image: NDArray, weights: csr_array, out_height: int) -> NDArray:
    """An image (H, W, C) with H resized, then transposed: (W, out, C), float64 or rounded to uint8 as the image is."""
    height, width, channels = image.shape
    step = max(1, BLOCK // channels)
    out = np.empty((width, out_height, channels), np.uint8 if image.dtype == np.uint8 else np.float64)
    # Columns are taken a few at a time, so that the processor's cache holds them in float64, before and after.
    block = np.empty((height, step, channels))
    for start in range(0, width, step):
        columns = image[:, start : start + step]
        part = block if columns.shape[1] == step else np.empty(columns.shape)
        part[:] = columns
        rows = weights @ part.reshape(height, -1)
        if image.dtype == np.uint8:
            np.clip(rows, 0, 255, out=rows)
            rows += 0.5
            rows = rows.astype(np.uint8)  # which cuts off: together with the half, MATLAB's rounding
        rows = rows.reshape(out_height, -1, channels)
        # OpenCV's transpose is several times as fast as a copy by NumPy, but for few channels only.
        turned = rows.transpose(1, 0, 2) if channels > MOST_CHANNELS else cv2.transpose(rows)
        out[start : start + step] = turned.reshape(-1, out_height, channels)
    return out


def matlab_resize(image: NDArray, scale: float, *, antialias: bool = True, border: Border = 'replicate') -> NDArray:
    """Resize as MATLAB's ``imresize(image, scale, 'bicubic')`` does: rows first, then columns, in float64.

    A uint8 image is rounded (half up) and clipped after each of the two passes, as MATLAB does; with the border rule
    ``replicate`` (older MATLAB) this gives the LR images of the published benchmarks, bit for bit.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or floating point in any range.
        scale: Factor on both sides, e.g. 1/2; the output has ceil(side * scale) pixels.
        antialias: Widen the kernel when shrinking.
        border: How the image goes on outside: ``replicate`` the last pixel, or ``symmetric`` (newer MATLAB: mirror).

    Returns:
        The resized image: uint8 for a uint8 image, else float64 without clipping.

    Raises:
        TypeError: The image is neither uint8 nor floating point.
    """
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f'matlab_resize takes uint8 or floating point images, not {image.dtype}')
    result = image if image.ndim == COLOUR else image[..., None]
    for side in image.shape[:2]:
        # The tiny subtraction keeps ceil(100 * 0.29) at 29 although the product in floating point lies above it.
        out_side = int(np.ceil(side * scale - 1e-9))
        result = _resized_rows(result, resize_matrix(side, out_side, scale, antialias, border), out_side)
    return result.reshape(*result.shape[:2], *image.shape[2:])
