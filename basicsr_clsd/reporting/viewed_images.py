"""The images behind tests: HR, LR, and what every method made of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_clsd.config.load import load
from basicsr_clsd.data.paired_dataset import PairedDataset
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.metrics import Image, as_image, bicubic
from basicsr_clsd.evaluation.results import BICUBIC, Tested
from basicsr_clsd.reporting.crops import in_color

HR, LR = 'HR', 'LR'
KEYS = {HR: 'gt', LR: 'lq'}


@dataclass
class Scene:
    """One image of a set at one scale.

    Args:
        dataset: Name of the set.
        name: Name of the image.
        scale: Super-resolution factor.
        outputs: Files that tests wrote, by method.
        pairs: The set that was tested on, and the image's place in it; None if it is no longer there.
        luma: PSNR and SSIM were measured on Y, not on RGB.
        border: Pixels that were cut from each side.
    """

    dataset: str
    name: str
    scale: int
    outputs: dict[str, Path]
    pairs: tuple[PairedDataset, int] | None
    luma: bool
    border: int

    def names(self) -> list[str]:
        """All that can be seen: ``HR``, ``LR`` and ``bicubic`` where the set is there, then the methods."""
        return [*([HR, LR, BICUBIC] if self.pairs else []), *self.outputs]

    def read(self, what: str) -> Image:
        """Decode or compute one of :meth:`names`: BGR uint8, of HR's size except ``LR``.

        Raises:
            UserError: A file cannot be decoded.
        """
        if what in self.outputs:
            content = np.fromfile(self.outputs[what], np.uint8)
            image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
            if image is None:
                raise UserError(f'{self.outputs[what]}: cannot be decoded as an image')
            return image.astype(np.uint8)
        assert self.pairs is not None
        dataset, index = self.pairs
        sample: dict[str, Any] = dataset[index]
        image = as_image(sample[KEYS.get(what, 'lq')])
        return in_color(bicubic(image, self.scale) if what == BICUBIC else image)

    def file(self, what: str) -> Path | None:
        """The image's own file, if it is one."""
        if what in self.outputs:
            return self.outputs[what]
        if self.pairs is None or what == BICUBIC:
            return None
        dataset, index = self.pairs
        path = Path(str(dataset[index][f'{KEYS[what]}_path']))
        return path if path.is_file() else None


def scenes(named: Iterable[tuple[str, Tested]]) -> list[Scene]:
    """The images of tests that wrote their outputs (``val.save_img``), in the order of the tables.

    Args:
        named: Rows of tests, and what to call each.
    """
    found: dict[tuple[int, str, str], Scene] = {}
    opened: dict[tuple[int, str], _Set] = {}
    for name, each in named:
        if each.network.images is None:
            continue
        for dataset, measured in each.sets.items():
            for image in measured.images:
                output = each.folder / each.network.images.replace('{set}', dataset, 1).replace('{image}', image, 1)
                if not output.is_file():
                    continue
                key = each.scale, dataset
                if key not in opened:
                    opened[key] = _open(each, dataset)
                known = opened[key]
                empty = Scene(dataset, image, each.scale, {}, known.places.get(image), known.luma, known.border)
                found.setdefault((*key, image), empty).outputs[name] = output
    return list(found.values())


@dataclass
class _Set:
    """A set as it was tested on: places of its images by name, and what the metrics were computed on."""

    places: dict[str, tuple[PairedDataset, int]]
    luma: bool = False
    border: int = 0


def _open(tested: Tested, dataset: str) -> _Set:
    """Open a set by the resolved options of a test; without places if it or they are not where they were."""
    try:
        options = load(tested.folder / f'{tested.name}.yml')
        sections = {section.name: section for _, section in options.sets('test', 'val')}
        pairs = PairedDataset({**sections[dataset].as_dict(), 'phase': 'test', 'scale': options.scale})
    except (UserError, OSError, KeyError):
        return _Set({})
    how = options.val.metrics['psnr'].arguments() if 'psnr' in options.val.metrics else {}
    places = {pairs.name(index): (pairs, index) for index in range(len(pairs))}
    return _Set(places, bool(how.get('test_y_channel')), int(how.get('crop_border', 0)))
