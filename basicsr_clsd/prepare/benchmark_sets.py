"""The benchmark sets Set5, Set14, B100 and Urban100: from EDSR's archive to the layout of the shipped options."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt
from rich.console import Console

from basicsr_clsd.config.paths import located
from basicsr_clsd.config.section import FileName
from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.download import CATALOGUES, Catalogue, Checksum, read_catalogue, remaining
from basicsr_clsd.prepare.workspace import ARCHIVES, MADE_FROM, UNPACKED, bar, prepared_folder, raise_faults, unpacked
from basicsr_clsd.runtime.files import check_free, hidden_path, write_image, write_text

SCALES = (2, 3, 4)
TOP = 'benchmark'  # folder in the archive
MARGIN = 12  # some cut HR to multiples of 12 before they shrink it, which is the most that LR images lack

Image = NDArray[np.uint8]


class BenchmarkSets(Catalogue):
    """The archive, and the sets in it with their numbers of images."""

    archive: FileName
    checksum: Checksum
    bytes: PositiveInt | None = None
    images: dict[FileName, PositiveInt]


def load_catalogue(path: Path | None = None, mirror: str | None = None) -> BenchmarkSets:
    """Read what is known of the archive; see :func:`basicsr_clsd.prepare.download.read_catalogue`."""
    return read_catalogue(BenchmarkSets, path or CATALOGUES / 'benchmark_sets.yml', mirror)


def prepare(known: BenchmarkSets, root: Path, archives: Path | None, console: Console) -> None:
    """Make ``root/SET/HR/xS/IMAGE.png`` and ``root/SET/LRbicxS/IMAGE.png`` for each set and scale of the archive.

    The pixels are those of the archive; HR is cropped at the bottom and the right to the LR size times the scale, and
    gray images get three equal channels. A set appears when it is whole. One that is there stays as it is.

    Args:
        known: What the archive is.
        root: Folder of the data.
        archives: Folder with the archive; None: it is downloaded to ``root/archives``.
        console: For progress, and for the list of faults.

    Raises:
        UserError: The archive is missing, damaged, or another one; images in it are missing, damaged, or of a wrong
            size.
        OSError: The download or the disk failed.
    """
    root = located(root)
    with prepared_folder(root):
        todo = []
        for name in known.images:
            if not (root / name).exists():
                todo.append(name)
            elif not _is_ours(root / name, known):
                console.print(f'{root / name} is there already and stays as it is', highlight=False)
        if todo:
            file = known.remote(known.archive, known.checksum, known.bytes)
            if archives is None:
                check_free(root, 2 * remaining(file, root / ARCHIVES))
            source = unpacked(file, root, root / ARCHIVES, archives, console) / TOP
            _make_all(known, source, root, todo, console)
        shutil.rmtree(root / UNPACKED, ignore_errors=True)
    console.print(f'{", ".join(known.images)} are ready in {root}', highlight=False)


def _is_ours(folder: Path, known: BenchmarkSets) -> bool:
    try:
        return json.loads((folder / MADE_FROM).read_text(encoding='utf-8'))['checksum'] == known.checksum
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _make_all(known: BenchmarkSets, source: Path, root: Path, names: list[str], console: Console) -> None:
    faults = []
    for name in names:
        partial = hidden_path(root / name)
        if partial.exists():
            shutil.rmtree(partial)
        found = _make(source / name, known.images[name], partial, bar(console, f'Writing {name}'))
        faults += found
        if found:
            shutil.rmtree(partial, ignore_errors=True)
            continue
        origin = {'archive': known.archive, 'checksum': known.checksum}
        write_text(json.dumps(origin), partial / MADE_FROM)
        os.replace(partial, root / name)
        console.print(f'Made {root / name}', highlight=False)
    raise_faults(faults, known.archive, 'sets without any are made', console)


def _make(source: Path, count: int, target: Path, progress: Callable[[list[str]], Iterable[str]]) -> list[str]:
    """Write one set to ``target``; returns what is wrong with the source."""
    hr = FolderStore(source / 'HR')
    names = hr.names()
    faults = []
    if len(names) != count:
        faults.append(f'{hr.root}: {len(names)} images where {count} were expected')
    scales = [scale for scale in SCALES if (source / 'LR_bicubic' / f'X{scale}').is_dir()]
    if not scales:
        faults.append(f'{source}: no folder LR_bicubic/X2, X3 or X4')
    for name in progress(names):
        try:
            image = hr.read(name)
            for scale in scales:
                lr = FolderStore(source / 'LR_bicubic' / f'X{scale}').read(f'{Path(name).stem}x{scale}.png')
                cropped = _cropped(image, lr, scale, hr.root / name)
                write_image(cropped, target / 'HR' / f'x{scale}' / f'{Path(name).stem}.png')
                write_image(lr, target / f'LRbicx{scale}' / f'{Path(name).stem}.png')
        except UserError as error:
            faults.append(str(error))
    return faults


def _cropped(hr: Image, lr: Image, scale: int, where: Path) -> Image:
    height, width = lr.shape[0] * scale, lr.shape[1] * scale
    if not (0 <= hr.shape[0] - height < MARGIN and 0 <= hr.shape[1] - width < MARGIN):
        raise UserError(
            f'{where}: {hr.shape[1]}x{hr.shape[0]} pixels do not fit the {lr.shape[1]}x{lr.shape[0]} of x{scale}'
        )
    return hr[:height, :width]
