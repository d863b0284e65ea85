"""Tests by method and scale: the seeds of a method together, and whether they can be compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.results import BICUBIC, ResultRow
from basicsr_clsd.reporting.statistics import Array

SAME_IMAGES = 2e-3  # dB and less: what rounding of one and the same bicubic upscaling may do


@dataclass
class Group:
    """One method at one scale: its tests, one per seed, in the order of the seeds."""

    label: str
    scale: int
    tested: list[ResultRow]

    @property
    def seeds(self) -> list[int | None]:
        """Seeds of the trainings; None where it is not known."""
        return [tested.seed for tested in self.tested]

    def shared_seeds(self, other: 'Group') -> list[int]:
        """Seeds that the other method was trained with, too."""
        return [seed for seed in self.seeds if seed is not None and seed in other.seeds]

    def of_seeds(self, seeds: Sequence[int]) -> 'Group':
        """This method with some of its seeds."""
        return Group(self.label, self.scale, [tested for tested in self.tested if tested.seed in seeds])

    def values(self, dataset: str, metric: str, images: Sequence[str] | None = None) -> Array:
        """Per image: (seeds, images), in the order of ``images``, or of the first test's."""
        images = images or list(self.tested[0].sets[dataset].images)
        rows = [[tested.sets[dataset].images[image][metric] for image in images] for tested in self.tested]
        return np.array(rows, dtype=np.float64)

    def has(self, dataset: str, metric: str) -> bool:
        """Whether every seed was measured there."""
        return all(dataset in tested.sets and metric in tested.sets[dataset].mean for tested in self.tested)


def group(tested: Sequence[ResultRow]) -> list[Group]:
    """Tests by method and scale, in the order in which they came; of bicubic upscaling one test per set is enough.

    Raises:
        UserError: Two tests are of one training, or two of a scale were not measured alike or on the same images.
    """
    _check_alike(tested)
    groups: dict[tuple[str, int], Group] = {}
    for each in tested:
        found = groups.setdefault((each.label, each.scale), Group(each.label, each.scale, []))
        twin = next((other for other in found.tested if _is_same(other, each)), None)
        if each.label == BICUBIC and found.tested:
            _check_bicubic(found.tested[0], each)
            found.tested = [each.model_copy(update={'sets': {**each.sets, **found.tested[0].sets}})]
        elif twin is not None:
            seed = '' if each.seed is None else f', seed {each.seed}'
            raise UserError(
                f'{each.folder}: a second test of {each.label} x{each.scale}{seed}, beside {twin.folder}; '
                'call one of them by another name: METHOD=PATH'
            )
        else:
            found.tested.append(each)
    for found in groups.values():
        found.tested.sort(key=lambda each: math.inf if each.seed is None else each.seed)
    return list(groups.values())


def _is_same(first: ResultRow, second: ResultRow) -> bool:
    """Whether two tests of one method are of one training, as far as is known."""
    if first.seed is not None or second.seed is not None:
        return first.seed == second.seed
    one, other = (tested.network.checkpoint or str(tested.folder) for tested in (first, second))
    return one == other


def named_tests(groups: Sequence[Group]) -> list[tuple[str, ResultRow]]:
    """Every test with its method's name, and its seed where there are several of a method at a scale."""
    named = []
    for each in groups:
        for number, tested in enumerate(each.tested, start=1):
            seed = f' seed {tested.seed}' if tested.seed is not None else f' no. {number}'
            named.append((each.label + (seed if len(each.tested) > 1 else ''), tested))
    return named


def _check_bicubic(first: ResultRow, second: ResultRow) -> None:
    """Bicubic upscaling needs no training: where it differs, the images do."""
    for name in first.sets.keys() & second.sets.keys():
        one, other = first.sets[name].images, second.sets[name].images
        for metric in first.sets[name].mean.keys() & second.sets[name].mean.keys():
            if one.keys() != other.keys() or any(
                abs(one[image][metric] - other[image][metric]) > SAME_IMAGES for image in one
            ):
                raise UserError(
                    f'{second.folder}: {name} is not the same images as in {first.folder}: '
                    f'{metric} of bicubic upscaling differs'
                )


def _check_alike(tested: Sequence[ResultRow]) -> None:
    """Each metric of the tests of a scale measured alike, and on the same images."""
    by_scale: dict[int, ResultRow] = {}
    images: dict[tuple[int, str], tuple[ResultRow, set[str]]] = {}
    for each in tested:
        first = by_scale.setdefault(each.scale, each)
        for metric in each.metrics.keys() & first.metrics.keys():
            if each.metrics[metric] != first.metrics[metric]:
                raise UserError(
                    f'{each.folder}: {metric} was measured otherwise ({each.metrics[metric].text()}) than in '
                    f'{first.folder} ({first.metrics[metric].text()})'
                )
        for name, measured in each.sets.items():
            other, names = images.setdefault((each.scale, name), (each, set(measured.images)))
            if set(measured.images) != names:
                raise UserError(f'{each.folder}: {name} is not the same images as in {other.folder}')
