"""The photos by which an int8 model is made and judged."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from basicsr.metrics import calculate_psnr
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.images.photo import find_photos, read_photo

Upscale = Callable[[NDArray[np.float32]], NDArray[np.float32]]
SIDE = 128  # LR pixels of a photo's middle that are looked at
MOST = 64  # photos
PARTS = 4
EQUAL = 99.0  # dB, for the mean, of an image without a difference


class Sample(NamedTuple):
    """The middle of a photo: LR (1, 3, h, w), RGB in [0, 1], and HR (H, W, 3), BGR, uint8."""

    lq: NDArray[np.float32]
    gt: NDArray[np.uint8]


class Calibration(NamedTuple):
    """Samples by what they are for: to find the ranges of values, to choose by, and to report on."""

    ranges: list[Sample]
    choice: list[Sample]
    held_out: list[Sample]


def read_calibration(folder: Path, scale: int, console: Console) -> Calibration:
    """Read photos and make their LR images by MATLAB's bicubic: half for ranges, a quarter to choose by, one to report.

    Of more than 64 photos 64 are taken, evenly spread over their names.

    Raises:
        UserError: There are fewer than four, or one cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder')
    names = find_photos(folder)[0]
    if len(names) < PARTS:
        raise UserError(f'{folder}: {len(names)} photos; calibration needs at least {PARTS}')
    names = [names[place] for place in np.linspace(0, len(names) - 1, min(len(names), MOST)).round().astype(int)]
    bar = track(names, 'Calibrating', console=console, disable=not console.is_terminal, transient=True)
    samples = [_sample(folder / name, scale) for name in bar]
    return Calibration(samples[::PARTS] + samples[1::PARTS], samples[2::PARTS], samples[3::PARTS])


def _sample(path: Path, scale: int) -> Sample:
    image = read_photo(path).pixels
    sides = [min(side // scale, SIDE) * scale for side in image.shape[:2]]
    if 0 in sides:
        raise UserError(f'{path}: too small to calibrate with')
    top, left = ((length - side) // 2 for length, side in zip(image.shape, sides, strict=False))
    gt = image[top : top + sides[0], left : left + sides[1]]
    lq = matlab_resize(gt, 1 / scale)[..., ::-1].transpose(2, 0, 1)[None]
    return Sample((lq / 255).astype(np.float32, order='C'), gt)


def mean_psnr(upscale: Upscale, samples: Sequence[Sample], scale: int) -> float:
    """The mean PSNR (dB) on Y, ``scale`` pixels of border cut, of outputs rounded to 8 bits."""
    values = []
    for sample in samples:
        sr = upscale(sample.lq)[0].transpose(1, 2, 0)[..., ::-1]
        image = np.clip(sr * 255, 0, 255).round().astype(np.uint8)
        psnr = calculate_psnr(image, sample.gt, crop_border=scale, test_y_channel=True)
        values.append(min(float(psnr), EQUAL))
    return float(np.mean(values))
