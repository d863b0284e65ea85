"""How sure a difference between two methods is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The mean difference of a method to the baseline, with a bootstrap interval.

    Args:
        mean: Over seeds and images, in the metric's unit.
        low: Lower end of the interval.
        high: Its upper end.
        images: How many images it is computed from.
        left_out: Images on which a value is not finite.
    """

    mean: float
    low: float
    high: float
    images: int
    left_out: int


def mean_and_deviation(values: Array) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) over seeds; no deviation of a single value, or of infinite ones."""
    if len(values) == 1 or not np.isfinite(values).all():
        return float(np.mean(values)), None
    return float(np.mean(values)), float(np.std(values, ddof=1))


def paired_difference(method: Array, baseline: Array, same_seeds: bool) -> Difference | None:
    """Compare two methods on the same images.

    The interval is the percentile bootstrap's (Efron, 1979) of 10,000 resamples, seeded: images are drawn with
    replacement, the same ones for both methods, and so are seeds, the same ones for both if they were trained with the
    same seeds. With one seed it says nothing of other seeds.

    Args:
        method: Values (seeds, images).
        baseline: Values (its seeds, images), of the same images in the same order.
        same_seeds: Row by row of the same seed in both.

    Returns:
        None if there is no image with finite values in all rows.
    """
    finite = np.isfinite(method).all(0) & np.isfinite(baseline).all(0)
    method, baseline = method[:, finite], baseline[:, finite]
    images = method.shape[1]
    if not images:
        return None
    rng = np.random.default_rng(SEED)
    image_weights = _draws(images, rng)
    seed_weights = _draws(len(method), rng)
    baseline_weights = seed_weights if same_seeds else _draws(len(baseline), rng)
    per_image = seed_weights @ method - baseline_weights @ baseline
    low, high = np.quantile((per_image * image_weights).sum(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(method.mean() - baseline.mean())
    return Difference(mean, float(low), float(high), images, int((~finite).sum()))


def _draws(count: int, rng: np.random.Generator) -> Array:
    """For each resample, the share of each of ``count`` things: (resamples, count), rows that sum to 1."""
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
