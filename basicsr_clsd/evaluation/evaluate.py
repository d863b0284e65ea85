"""Upscale a set of images and compare them with HR."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from basicsr.utils.matlab_functions import imresize
from numpy.typing import NDArray
from torch import Tensor

from basicsr_clsd.config.components import Metric
from basicsr_clsd.data.paired_dataset import PairedDataset

Image = NDArray[np.uint8]
Upscale = Callable[[Tensor], list[Tensor]]


@dataclass
class Scores:
    """Metrics of one method on one set: ``images[name][metric]``."""

    images: dict[str, dict[str, float]] = field(default_factory=dict)

    def mean(self) -> dict[str, float]:
        """Each metric's mean over the images."""
        metrics = next(iter(self.images.values()), {})
        return {metric: float(np.mean([values[metric] for values in self.images.values()])) for metric in metrics}


def joined(parts: Sequence[Scores], names: Sequence[str]) -> Scores:
    """Scores of parts of a set as those of the whole, in the order of ``names``, so that means have the same bits."""
    images = {name: values for part in parts for name, values in part.images.items()}
    return Scores({name: images[name] for name in names})


@dataclass
class Sample:
    """One image of a set: HR, LR and what a method made of it, all BGR uint8 (H, W, 3)."""

    name: str
    gt: Image
    lq: Image
    outputs: list[Image]


def upscaled(dataset: PairedDataset, upscale: Upscale, indices: Sequence[int] | None = None) -> Iterator[Sample]:
    """Upscale the images of a set.

    Args:
        dataset: In the phase ``val`` or ``test``.
        upscale: Takes (1, 3, h, w) in [0, 1], returns outputs (1, 3, H, W).
        indices: Which images; default all.

    Yields:
        Samples whose outputs are clipped and rounded to 8 bits.
    """
    for index in range(len(dataset)) if indices is None else indices:
        data: dict[str, Any] = dataset[index]
        outputs = [as_image(output) for output in upscale(data['lq'][None])]
        yield Sample(dataset.name(index), as_image(data['gt']), as_image(data['lq']), outputs)


def as_image(tensor: Tensor) -> Image:
    """A tensor in [0, 1], (C, H, W) or (1, C, H, W), RGB, to an image, clipped and rounded: BGR (H, W, C) or (H, W)."""
    return tensor2img(tensor)  # pyright: ignore[reportReturnType]  (an array for a single tensor)


def measure(image: Image, gt: Image, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """All metrics of one image against HR, both uint8 and of one shape."""
    return {
        name: float(calculate_metric({'img': image, 'img2': gt}, {'type': metric.type, **metric.arguments()}))
        for name, metric in metrics.items()
    }


def bicubic(lq: Image, scale: int) -> Image:
    """Bicubic upscaling (a = -0.5) as in published tables: BasicSR's ``imresize``, clipped and rounded."""
    return np.clip(imresize(lq.astype(np.float32), scale), 0, 255).round().astype(np.uint8)
