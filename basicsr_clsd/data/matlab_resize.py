"""MATLAB's ``imresize(..., 'bicubic')``, with which the field makes its LR images."""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Border = Literal['replicate', 'symmetric']
SUPPORT = 4.0  # width of the cubic kernel in samples
A = -0.5  # Keys' cubic convolution


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = (A + 2) * x**3 - (A + 3) * x**2 + 1
    far = A * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))  # noqa: PLR2004  (the kernel's two pieces)


@lru_cache(maxsize=64)
def _taps(
    length: int, out_length: int, scale: float, antialias: bool, border: Border
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Source indices and weights, both (out_length, taps), of one axis."""
    stretch = min(scale, 1.0) if antialias else 1.0
    width = SUPPORT / stretch
    # Sample centres: MATLAB counts from 1, so output u sits at u/s + (1 - 1/s)/2 of the input.
    centre = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - width / 2)
    index = left[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = stretch * _cubic(stretch * (centre[:, None] - index))
    weights /= weights.sum(axis=1, keepdims=True)
    index = index.astype(np.intp) - 1
    if border == 'replicate':
        index = np.clip(index, 0, length - 1)
    else:
        index = np.mod(index, 2 * length)
        index = np.where(index < length, index, 2 * length - 1 - index)
    used = np.any(weights != 0, axis=0)
    return index[:, used], weights[:, used]


def _resize_rows(
    image: NDArray[np.float64], out_length: int, scale: float, antialias: bool, border: Border
) -> NDArray[np.float64]:
    index, weights = _taps(image.shape[0], out_length, scale, antialias, border)
    flat = image.reshape(image.shape[0], -1)
    out = np.zeros((out_length, flat.shape[1]))
    for tap in range(index.shape[1]):  # MATLAB's order of summation, for equal rounding
        out += weights[:, tap, None] * flat[index[:, tap]]
    return out.reshape(out_length, *image.shape[1:])


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
    result = image
    for axis in (0, 1):
        # The tiny subtraction keeps ceil(100 * 0.29) at 29 although the product in floating point lies above it.
        out_length = int(np.ceil(image.shape[axis] * scale - 1e-9))
        rows = np.moveaxis(result, axis, 0).astype(np.float64)
        rows = _resize_rows(rows, out_length, scale, antialias, border)
        if image.dtype == np.uint8:
            rows = np.clip(np.floor(rows + 0.5), 0, 255).astype(np.uint8)
        result = np.moveaxis(rows, 0, axis)
    return np.ascontiguousarray(result)
