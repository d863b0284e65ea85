"""DIV2K: from its archives to checked folders and LMDBs, in the layout that the shipped options expect."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveInt
from rich.console import Console

from basicsr_clsd.config.paths import located
from basicsr_clsd.config.section import Section
from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.checks.decodable import Size, verify
from basicsr_clsd.prepare.download import CATALOGUES, Catalogue, Checksum, RemoteFile, read_catalogue, remaining
from basicsr_clsd.prepare.layout import SetPaths
from basicsr_clsd.prepare.lmdb_build import build_raw_lmdb
from basicsr_clsd.prepare.pairs import PairedStores, build_lmdbs
from basicsr_clsd.prepare.workspace import (
    ARCHIVES,
    UNPACKED,
    Storage,
    bar,
    prepared_folder,
    raise_faults,
    unpacked,
    unpacked_folder,
)
from basicsr_clsd.runtime.files import check_free, check_writable

Split = Literal['train', 'valid']

SPLITS: tuple[Split, ...] = ('train', 'valid')


class Archive(Section):
    """How to know an archive."""

    bytes: PositiveInt
    checksum: Checksum


def _in_order(numbers: tuple[int, int]) -> tuple[int, int]:
    if numbers[0] > numbers[1]:
        raise ValueError('the first number is greater than the last')
    return numbers


Numbers = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_in_order)]


class Images(Section):
    """Numbers of the first and the last image."""

    train: Numbers
    valid: Numbers


class Div2k(Catalogue):
    """The archives of DIV2K by their names, which tell what is in them."""

    images: Images
    archives: dict[str, Archive]


@dataclass(frozen=True)
class ImageSet:
    """A folder of images and the archive that holds it.

    Args:
        split: ``train`` or ``valid``.
        scale: 1 for HR, else that of the LR images.
    """

    split: Split
    scale: int

    @property
    def folder(self) -> str:
        """Path in the archive, and below ``DIV2K``."""
        hr = self.scale == 1
        return f'DIV2K_{self.split}_HR' if hr else f'DIV2K_{self.split}_LR_bicubic/X{self.scale}'

    @property
    def archive(self) -> str:
        """Name of the archive."""
        return f'{self.folder.replace("/", "_")}.zip'

    def image(self, number: int) -> str:
        """Name of an image."""
        return f'{number:04d}.png' if self.scale == 1 else f'{number:04d}x{self.scale}.png'


def load_catalogue(path: Path | None = None, mirror: str | None = None) -> Div2k:
    """Read what is known of the archives; see :func:`basicsr_clsd.prepare.download.read_catalogue`."""
    return read_catalogue(Div2k, path or CATALOGUES / 'div2k.yml', mirror)


def prepare(
    known: Div2k, root: Path, scales: Sequence[int], storage: Storage, archives: Path | None, console: Console
) -> None:
    """Make ``root/DIV2K`` with HR images and LR images of some scales, or complete it.

    In this order: obtain and unpack the archives of the folders that are not there; decode all images and compare
    their number, names and sizes; store them. What an earlier call has done is not done again; a folder that somebody
    else has unpacked is checked and used. Nothing that is there is overwritten.

    Args:
        known: What the archives are.
        root: Folder of the data.
        scales: Of 2, 3, 4.
        storage: Beside each folder ``FOLDER.lmdb`` of raw pixels (``raw``), or of PNG images for BasicSR
            (``png-lmdb``), where LR images go by the names of HR, or nothing (``folder``).
        archives: Folder with the archives; None: they are downloaded to ``root/archives``.
        console: For progress, and for the list of faults.

    Raises:
        UserError: An archive that is missing, damaged, or another one; images that are missing, damaged, or of a wrong
            size.
        OSError: A download or the disk failed.
    """
    root = located(root)
    home = root / 'DIV2K'
    sets = [ImageSet(split, scale) for split in SPLITS for scale in (1, *sorted(set(scales)))]
    with prepared_folder(root):
        check_writable(home)
        home.mkdir(exist_ok=True)
        _unpack_all(known, sets, root, home, archives, console)
        _verify_all(known, sets, home, console)
        _store_all(sets, home, storage, console)
    console.print(f'DIV2K is ready in {home}', highlight=False)
    if archives is None and (root / ARCHIVES).exists():
        console.print(f'Its archives in {root / ARCHIVES} are no longer needed', highlight=False)


def _unpack_all(
    known: Div2k, sets: list[ImageSet], root: Path, home: Path, archives: Path | None, console: Console
) -> None:
    remote = {images: _remote(known, images) for images in sets if not _is_there(home / images.folder)}
    needed = [file for file in remote.values() if not unpacked_folder(file, home).exists()]
    if archives is not None:
        missing = [file.name for file in needed if not (archives / file.name).is_file()]
        if missing:
            raise UserError(f'{archives}: not there: {", ".join(missing)}')
    # The images are PNG files, which do not get smaller in an archive.
    size = sum(known.archives[file.name].bytes for file in needed)
    if archives is None:
        size += sum(remaining(file, root / ARCHIVES) for file in needed)
    check_free(home, size)
    for images, file in remote.items():
        folder = unpacked(file, home, root / ARCHIVES, archives, console)
        source = folder / images.folder
        if not source.is_dir():
            shutil.rmtree(folder)
            raise UserError(f'{file.name}: has no folder {images.folder}')
        (home / images.folder).parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, home / images.folder)
    shutil.rmtree(home / UNPACKED, ignore_errors=True)


def _is_there(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _remote(known: Div2k, images: ImageSet) -> RemoteFile:
    archive = known.archives.get(images.archive)
    if archive is None:
        raise UserError(f'archives: {images.archive} is not in the catalogue')
    return known.remote(images.archive, archive.checksum, archive.bytes)


def _verify_all(known: Div2k, sets: list[ImageSet], home: Path, console: Console) -> None:
    sizes: dict[ImageSet, dict[str, Size]] = {}
    faults = []
    for images in sets:
        first, last = known.images[images.split]
        folder = home / images.folder
        names = [images.image(number) for number in range(first, last + 1)]
        sizes[images], found = verify(folder, names, bar(console, f'Checking {images.folder}'))
        faults += found
        if images.scale != 1:
            faults += _wrong_sizes(images, home, range(first, last + 1), sizes)
    raise_faults(faults, home, 'delete a folder to have it unpacked again', console)


def _store_all(sets: list[ImageSet], home: Path, storage: Storage, console: Console) -> None:
    made: dict[Path, bool] = {}
    if storage == 'raw':
        for images in sets:
            folder = home / images.folder
            target = folder.with_name(f'{folder.name}.lmdb')
            made[target] = build_raw_lmdb(FolderStore(folder), target, progress=bar(console, f'Storing {target.name}'))
    elif storage == 'png-lmdb':
        for split in SPLITS:
            hr, *lrs = (home / images.folder for images in sets if images.split == split)
            made |= build_lmdbs(PairedStores(SetPaths(hr, tuple(lrs))), False, None, bar(console, f'Storing {split}'))
    for target, new in made.items():
        if new:
            console.print(f'Stored {target}', highlight=False)


def _wrong_sizes(images: ImageSet, home: Path, numbers: range, sizes: dict[ImageSet, dict[str, Size]]) -> Iterator[str]:
    hr = ImageSet(images.split, 1)
    for number in numbers:
        large, small = sizes[hr].get(hr.image(number)), sizes[images].get(images.image(number))
        if large and small and large != (small[0] * images.scale, small[1] * images.scale):
            yield (
                f'{home / images.folder / images.image(number)}: {small[1]}x{small[0]} pixels, where HR has '
                f'{large[1]}x{large[0]}'
            )
