"""Upscale a set of images and compare them with HR."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from torch import Tensor

from basicsr_clsd.config.components import Metric
from basicsr_clsd.data.paired_dataset import PairedDataset
from basicsr_clsd.data.stores import EIGHT_BITS
from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.runtime.threads import in_threads

Image = NDArray[Any]
Result = TypeVar('Result')
Upscale = Callable[[Tensor], list[Tensor]]
READERS = 2  # threads: more would only wait, and an image in floating point is large
MEASURERS = min(os.cpu_count() or 1, 8)  # threads: a GPU upscales an image in a tenth of the time of its SSIM
SSIM_WINDOW = 11
WHITE_16 = 65535
EQUAL_TO_HR = 'is infinite, the image is equal to HR'
TOO_SMALL = 'is undefined, the image too small for it'


@dataclass
class Scores:
    """Metrics of one method on one set: ``images[name][metric]``."""

    images: dict[str, dict[str, float]] = field(default_factory=dict)

    def mean(self) -> dict[str, float]:
        """Each metric's mean over the images whose value is finite; if none is, what they have instead."""
        return {metric: self._mean_of(metric) for metric in self.metrics()}

    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return list(next(iter(self.images.values()), {}))

    def _mean_of(self, metric: str) -> float:
        values = [values[metric] for values in self.images.values()]
        finite = [value for value in values if math.isfinite(value)]
        return float(np.mean(finite or values))

    def left_out(self, metric: str) -> dict[str, str]:
        """Why images are not in a metric's mean, by name."""
        values = {name: values[metric] for name, values in self.images.items()}
        return {
            name: EQUAL_TO_HR if math.isinf(value) else TOO_SMALL
            for name, value in values.items()
            if not math.isfinite(value)
        }


def joined(parts: Sequence[Scores], names: Sequence[str]) -> Scores:
    """Scores of parts of a set as those of the whole, in the order of ``names``, so that means have the same bits."""
    images = {name: values for part in parts for name, values in part.images.items()}
    return Scores({name: images[name] for name in names})


@dataclass
class Sample:
    """One image of a set: HR, LR and what a method made of it, all BGR (H, W, 3), uint8, or uint16 of more bits."""

    name: str
    gt: Image
    lq: Image
    outputs: list[Image]


def upscaled(
    dataset: PairedDataset, upscale: Upscale, indices: Sequence[int] | None = None, takes: str = 'lq'
) -> Iterator[Sample]:
    """Upscale the images of a set.

    Args:
        dataset: In the phase ``val`` or ``test``.
        upscale: Takes (1, 3, h, w) in [0, 1] on the CPU, returns outputs (1, 3, H, W) on any device.
        indices: Which images; default all.
        takes: What is upscaled: ``lq``, or ``gt`` by a network that is given HR images, (1, 3, H, W).

    Yields:
        Samples whose outputs are clipped and rounded to 8 bits; to 16 of a set whose ``bit_depth`` is more than 8.
    """
    dtype = np.uint8 if dataset.bit_depth == EIGHT_BITS else np.uint16

    def read(index: int) -> tuple[Sample, Tensor]:
        data: dict[str, Any] = dataset[index]
        return Sample(dataset.name(index), as_image(data['gt'], dtype), as_image(data['lq'], dtype), []), data[takes]

    for sample, image in in_threads(read, range(len(dataset)) if indices is None else indices, threads=READERS):
        sample.outputs += [as_image(output, dtype) for output in upscale(image[None])]
        yield sample


def measured(samples: Iterable[Sample], work: Callable[[Sample], Result]) -> Iterator[tuple[Sample, Result]]:
    """Samples, and what ``work`` finds out about each; the next ones are upscaled meanwhile."""
    return in_threads(lambda sample: (sample, work(sample)), samples, threads=MEASURERS)


def as_image(tensor: Tensor, dtype: type = np.uint8) -> Image:
    """A tensor in [0, 1], (C, H, W) or (1, C, H, W), RGB, to an image, clipped and rounded: BGR (H, W, C) or (H, W).

    Bytes are made where the tensor is, and are a quarter of what would have to be copied from there.
    """
    planes = tensor.detach().reshape(tensor.shape[-3:]).clamp(0, 1)
    if dtype == np.uint8:
        pixels: Image = planes.mul_(255).round_().to(torch.uint8).cpu().numpy()
    else:
        pixels = planes.cpu().double().mul_(np.iinfo(dtype).max).round_().numpy().astype(dtype)
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))


def in_8_bits(image: Image) -> NDArray[np.uint8]:
    """An image to show, uint8."""
    return image if image.dtype == np.uint8 else np.round(image / (WHITE_16 / 255)).astype(np.uint8)


def measure(image: Image, gt: Image, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """All metrics of one image against HR, both uint8 or uint16, and of one shape.

    Equal images have an infinite PSNR. NaN stands for what is not defined: SSIM where its window of 11 x 11 pixels does
    not fit into what is left when the border is cut, and any metric where nothing is left.

    Raises:
        UserError: A metric cannot be computed for images like these.
    """
    if image.dtype == np.uint16:  # metrics count in units of 8 bits
        image, gt = (each.astype(np.float64) * (255 / WHITE_16) for each in (image, gt))
    return {name: _measure_one(name, metric, image, gt) for name, metric in metrics.items()}


def _measure_one(name: str, metric: Metric, image: Image, gt: Image) -> float:
    left = min(gt.shape[:2]) - 2 * metric.arguments().get('crop_border', 0)
    if left < (SSIM_WINDOW if metric.type == 'calculate_ssim' else 1):
        return math.nan
    try:
        return float(calculate_metric({'img': image, 'img2': gt}, {'type': metric.type, **metric.arguments()}))
    except (AssertionError, ValueError, RuntimeError) as error:
        size = f'{image.shape[1]}x{image.shape[0]}'
        raise UserError(f'val.metrics.{name}: {metric.type} of {size}: {first_line(error)}') from error


def bicubic(lq: Image, scale: int) -> Image:
    """Bicubic upscaling (a = -0.5) as in published tables: BasicSR's ``imresize``, clipped and rounded."""
    white = np.iinfo(lq.dtype).max
    return np.clip(imresize(lq.astype(np.float32), scale), 0, white).round().astype(lq.dtype)


@METRIC_REGISTRY.register()
def calculate_pyiqa(
    img: NDArray[np.uint8], img2: NDArray[np.uint8], metric: str, crop_border: int = 0, **kwargs: Any
) -> float:
    """Compare an image with HR by a metric of pyiqa.

    Args:
        img: BGR or gray, uint8 (H, W, 3) or (H, W).
        img2: HR, likewise.
        metric: pyiqa's name: ``lpips`` (Zhang et al., CVPR 2018), ``dists`` (Ding et al., TPAMI 2020), ...
        crop_border: Pixels cut from each side.
        kwargs: Ignored, as by BasicSR's metrics.

    Raises:
        UserError: pyiqa does not know the metric, or cannot get its weights.
    """
    inside = slice(crop_border, -crop_border or None)
    tensors = []
    for image in (img, img2):
        rgb = np.stack([image] * 3, -1) if image.ndim == 2 else image[..., ::-1]  # noqa: PLR2004  (gray)
        tensors.append(torch.from_numpy(rgb[inside, inside].astype(np.float32) / 255).permute(2, 0, 1)[None])
    with torch.no_grad():
        return float(_metric(metric)(*tensors))


@cache
def _metric(name: str) -> Any:
    import pyiqa  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (an extra)

    try:
        return pyiqa.create_metric(name)
    except Exception as error:  # what a download or a registry raises
        raise UserError(f"val.metrics: pyiqa cannot make the metric '{name}': {first_line(error)}") from error
