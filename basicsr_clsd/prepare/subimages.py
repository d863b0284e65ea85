"""Sub-images as BasicSR's tools cut them, HR and LR together, so that they always pair."""

import math
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from basicsr_clsd.data.stores import ImageStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import stem
from basicsr_clsd.prepare.pairs import PairedStores
from basicsr_clsd.prepare.workspace import bar, staged
from basicsr_clsd.runtime.files import write_image
from basicsr_clsd.runtime.threads import in_threads


class Grid(NamedTuple):
    """Where sub-images lie, in HR pixels.

    Args:
        size: Side of a sub-image.
        step: From one to the next.
        rest: A last one is cut at the far edge if more than this is left over (BasicSR's ``thresh_size``).
    """

    size: int = 480
    step: int = 240
    rest: int = 0

    def starts(self, side: int) -> list[int]:
        """First pixels along a side; a side shorter than a sub-image gives one, of all of it."""
        starts = list(range(0, max(side - self.size, 0) + 1, self.step))
        if side - (starts[-1] + self.size) > self.rest:
            starts.append(side - self.size)
        return starts


def cut_subimages(sources: PairedStores, target: Path, grid: Grid, console: Console) -> None:
    """Write ``target/HR`` and ``target/LRbicx{S}`` with sub-images ``NAME_s001.png``, row by row, of each image.

    The places are those of BasicSR's ``extract_subimages.py``; each sub-image of LR shows the place of that of HR and
    has its name. ``target`` is filled under a hidden name and renamed when it is whole.

    Raises:
        UserError: HR images that are not exactly the scale times their LR images, an image that cannot be decoded, two
            whose sub-images would share names, or something else at ``target``.
        OSError: The disk is full, ...
    """
    hr = sources.hr
    sizes = {name: hr.size(name) for name in sources.names}
    scales = [sources.scale(lr) for lr in sources.lrs]
    if len(set(scales)) < len(scales):
        raise UserError(f'{sources.lrs[-1].root}: two folders of LR images of one scale')
    for key in ('size', 'step'):
        if getattr(grid, key) % math.lcm(*scales):
            raise UserError(f'--{key} {getattr(grid, key)}: must be a multiple of {" and ".join(map(str, scales))}')
    outputs = {name: stem(name).replace('/', '_') for name in sources.names}
    owners: dict[str, str] = {}
    for name, output in outputs.items():
        if owners.setdefault(output, name) != name:
            raise UserError(f'{hr.root}: {owners[output]} and {name} would share names of sub-images; rename one')

    def write(folder: Path, name: str) -> None:
        height, width = sizes[name]
        places = [(top, left) for top in grid.starts(height) for left in grid.starts(width)]
        files = [f'{outputs[name]}_s{number:03d}.png' for number in range(1, len(places) + 1)]
        if (folder / 'HR' / files[-1]).exists():  # the last one to be written
            return
        images: list[tuple[int, str, ImageStore, str]] = [
            (scale, f'LRbicx{scale}', lr, sources.partner(lr, name))
            for lr, scale in zip(sources.lrs, scales, strict=True)
        ]
        for scale, home, store, image in [*images, (1, 'HR', hr, name)]:
            pixels = store.read(image)
            for (top, left), file in zip(places, files, strict=True):
                bottom, right = min(top + grid.size, height), min(left + grid.size, width)
                part = pixels[top // scale : bottom // scale, left // scale : right // scale]
                write_image(part, folder / home / file)

    settings = {**grid._asdict(), 'scales': scales}
    with staged(target, settings, sources.stamps()) as folder:
        if folder is None:
            console.print(f'{target}: is there already, made from these images', highlight=False, markup=False)
            return
        for _ in in_threads(lambda name: write(folder, name), sources.names, bar(console, 'Cutting sub-images')):
            pass
    console.print(f'Sub-images of {len(sources.names)} images: {target}', highlight=False, markup=False)
