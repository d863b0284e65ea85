"""What the report's image viewer shows: pictures embedded up to a size, linked beyond it."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2

from basicsr_clsd.evaluation.results import Tested
from basicsr_clsd.reporting.viewed_images import HR, LR, Scene, scenes

BASE64 = 4 / 3
MIB = 2**20


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


def viewer_data(named: Sequence[tuple[str, Tested]], limit: int, folder: Path) -> ViewerData:
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
                'channel': 'y' if scene.luma else 'rgb',
                'border': scene.border,
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


def _metrics(named: Sequence[tuple[str, Tested]], scene: Scene) -> dict[str, dict[str, str]]:
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


def describe(data: ViewerData, limit: int) -> str:
    """One sentence on what is in the page."""
    if not data.scenes:
        return 'No images: they are there if the tests were run with --force_yml val:save_img=true.'
    text = f'Embedded pictures: {data.embedded / MIB:.1f} MiB of at most {limit / MIB:.0f}.'
    if data.linked:
        text += f' Of {data.linked} image(s) the pictures are linked: the page needs their files beside it.'
    if all(not any(version['name'] == HR for version in scene['versions']) for scene in data.scenes):
        text += ' HR is not there: it was not found where the tests read it.'
    return text
