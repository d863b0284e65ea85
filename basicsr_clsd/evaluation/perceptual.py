"""LPIPS, DISTS and whatever else pyiqa has, as a metric of the registry; pyiqa is an optional extra."""

from functools import cache
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from basicsr_clsd.errors import UserError, first_line


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
