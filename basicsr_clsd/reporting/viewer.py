"""The images behind tests, and what the report's viewer shows: embedded up to a size, linked beyond it."""

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from basicsr_clsd.data.paired_dataset import PairedDataset
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.crops import in_color
from basicsr_clsd.evaluation.metrics import Image, as_image, bicubic
from basicsr_clsd.evaluation.results import BICUBIC, MetricProtocol, ResultRow

HR, LR = 'HR', 'LR'
KEYS = {HR: 'gt', LR: 'lq'}
BASE64 = 4 / 3
MIB = 2**20

Places = dict[str, tuple[PairedDataset, int]]  # of a set's images, by name


@dataclass
class Scene:
    """One image of a set at one scale.

    Args:
        dataset: Name of the set.
        name: Name of the image.
        scale: Super-resolution factor.
        outputs: Files that tests wrote, by method.
        pairs: The set that was tested on, and the image's place in it; None if it is no longer there.
        psnr: How PSNR was measured; None: it was not.
    """

    dataset: str
    name: str
    scale: int
    outputs: dict[str, Path]
    pairs: tuple[PairedDataset, int] | None
    psnr: MetricProtocol | None

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


def scenes(named: Iterable[tuple[str, ResultRow]]) -> list[Scene]:
    """The images of tests that wrote their outputs (``val.save_img``), in the order of the tables.

    Args:
        named: Rows of tests, and what to call each.
    """
    found: dict[tuple[int, str, str], Scene] = {}
    opened: dict[tuple[int, str], Places] = {}
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
                    opened[key] = _places(each, dataset)
                empty = Scene(dataset, image, each.scale, {}, opened[key].get(image), each.metrics.get('psnr'))
                found.setdefault((*key, image), empty).outputs[name] = output
    return list(found.values())


def _places(row: ResultRow, dataset: str) -> Places:
    """Open a set as it was tested; nothing if it is not where it was."""
    try:
        pairs = PairedDataset({**row.file.data.get(dataset, {}), 'phase': 'test', 'scale': row.scale})
    except (UserError, OSError, KeyError):
        return {}
    return {pairs.name(index): (pairs, index) for index in range(len(pairs))}


@dataclass
class ViewerData:
    """Scenes for the page, as plain values.

    Args:
        scenes: Each with its versions, their pictures and metrics.
        embedded: Characters of pictures in the page.
        linked: Scenes whose pictures are linked.
        places: Position of a scene by scale, set and image.
    """

    scenes: list[dict[str, Any]] = field(default_factory=list)
    embedded: int = 0
    linked: int = 0
    places: dict[tuple[int, str, str], int] = field(default_factory=dict)


def viewer_data(named: Sequence[tuple[str, ResultRow]], limit: int, folder: Path) -> ViewerData:
    """Collect the pictures of tests, in their order.

    Args:
        named: Rows of tests with what to call them.
        limit: Bytes of the page that pictures may take; an image of which not all versions fit is linked.
        folder: Where the page will be; links are relative to it.

    Raises:
        UserError: A picture cannot be decoded.
    """
    data = ViewerData()
    for scene in scenes(named):
        pictures = _embedded(scene, limit - data.embedded)
        if pictures is None:
            pictures = _linked(scene, folder)
            data.linked += 1
        else:
            data.embedded += sum(map(len, pictures.values()))
        metrics = _metrics(named, scene)
        data.places[scene.scale, scene.dataset, scene.name] = len(data.scenes)
        data.scenes.append(
            {
                'set': scene.dataset,
                'name': scene.name,
                'scale': scene.scale,
                **_size(scene),
                'channel': scene.psnr.color if scene.psnr else 'rgb',
                'border': scene.psnr.border if scene.psnr else 0,
                'linked': not next(iter(pictures.values())).startswith('data:'),
                'versions': [
                    {'name': name, 'src': source, 'lr': name == LR, 'metrics': metrics.get(name)}
                    for name, source in pictures.items()
                ],
            }
        )
    return data


def _embedded(scene: Scene, room: int) -> dict[str, str] | None:
    """All versions as data URLs; None if they do not fit."""
    if sum(path.stat().st_size for path in scene.outputs.values()) * BASE64 > room:
        return None
    pictures, used = {}, 0
    for name in scene.names():
        content = scene.outputs[name].read_bytes() if name in scene.outputs else _png(scene, name)
        pictures[name] = f'data:image/png;base64,{base64.b64encode(content).decode()}'
        used += len(pictures[name])
        if used > room:
            return None
    return pictures


def _png(scene: Scene, name: str) -> bytes:
    encoded, content = cv2.imencode('.png', scene.read(name))
    assert encoded
    return content.tobytes()


def _linked(scene: Scene, folder: Path) -> dict[str, str]:
    """Paths of the versions that are files, relative to the page."""
    files = {name: scene.file(name) for name in scene.names()}
    return {
        name: quote(Path(os.path.relpath(file.absolute(), folder.absolute())).as_posix())
        for name, file in files.items()
        if file is not None
    }


def _size(scene: Scene) -> dict[str, int]:
    """Size of the outputs."""
    name = next(iter(scene.outputs))
    height, width = scene.read(name).shape[:2]
    return {'width': width, 'height': height}


def _metrics(named: Sequence[tuple[str, ResultRow]], scene: Scene) -> dict[str, dict[str, str]]:
    """PSNR and SSIM of the image by method, as texts, since JSON has no infinity."""
    found = {}
    for name, tested in named:
        measured = tested.sets.get(scene.dataset)
        if tested.scale == scene.scale and measured and scene.name in measured.images:
            values = measured.images[scene.name]
            found[name] = {
                metric: repr(value).replace('inf', 'Infinity').replace('nan', 'NaN')
                for metric, value in values.items()
                if metric in ('psnr', 'ssim')
            }
    return found


def pictures_note(data: ViewerData, limit: int) -> str:
    """One sentence on what is in the page."""
    if not data.scenes:
        return 'No images: they are there if the tests were run with --force_yml val:save_img=true.'
    text = f'Embedded pictures: {data.embedded / MIB:.1f} MiB of at most {limit / MIB:.0f}.'
    if data.linked:
        text += f' Of {data.linked} image(s) the pictures are linked: the page needs their files beside it.'
    if all(not any(version['name'] == HR for version in scene['versions']) for scene in data.scenes):
        text += ' HR is not there: it was not found where the tests read it.'
    return text
