"""Folders and LMDBs of images, read alike: names, sizes without decoding, pixels, patches."""

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from basicsr_clsd.data.lmdb import RAW, Kind, open_lmdb, read_records
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import EXTENSIONS, crop, decode, decode_unit, stem
from basicsr_clsd.images.header import header_of
from basicsr_clsd.runtime.folders import files_below

EIGHT_BITS = 8


class ImageStore(Protocol):
    """Images under names; the same whatever holds them."""

    root: Path

    def names(self) -> list[str]:
        """Names of all images, sorted."""
        ...

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) of an image, without decoding it."""
        ...

    def stamp(self, name: str) -> list[int]:
        """Size in bytes and time of the last change, in ns, of the file that holds an image."""
        ...

    def read(self, name: str) -> NDArray[Any]:
        """Pixels, shape (H, W, 3), BGR; gray becomes three equal channels, alpha is dropped.

        uint8 or, of a store opened with more bits, float32 in [0, 1].
        """
        ...

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """A part of :meth:`read`'s pixels, (height, width, 3), BGR, in memory of its own.

        Raises:
            UserError: The image cannot be read, or the patch reaches beyond it.
        """
        ...


class Form(NamedTuple):
    """How an image is stored: bits of a value, and frames or pages."""

    bits: int
    frames: int


def open_store(root: str | Path, bit_depth: int = 8, prefer_lmdb: bool = False) -> ImageStore:
    """Open a folder of images or, if the folder's name ends in ``.lmdb``, an LMDB: of raw pixels, or BasicSR's.

    Args:
        root: Its path.
        bit_depth: Above 8, images are read in floating point: see :func:`~basicsr_clsd.images.codec.decode_unit`.
        prefer_lmdb: For a folder ``NAME`` read the raw pixels in ``NAME.lmdb`` beside it, if they were made from
            exactly the images that the folder has now: the same names, and the same sizes and times of their files. So
            an image that was changed, added or removed is never overlooked: the folder is read, and a warning logged.
            With more than 8 bits it is always the folder.

    Raises:
        UserError: It is not there, or is not what its name says.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root}: no such folder')
    if root.suffix != '.lmdb':
        store = FolderStore(root, bit_depth)
        return (_lmdb_beside(store) or store) if prefer_lmdb else store
    if bit_depth != EIGHT_BITS:
        raise UserError(f'{root}: images of an LMDB are read in 8 bits; for bit_depth {bit_depth} give their folder')
    return open_lmdb(root)


def _lmdb_beside(store: 'FolderStore') -> ImageStore | None:
    """The LMDB beside a folder, if it holds the raw pixels of the images that the folder has now."""
    path = store.root if store.root.name else Path(os.path.abspath(store.root))  # '.' has no name
    beside = path.with_name(f'{path.name}.lmdb')
    if not beside.is_dir():
        return None
    log = logging.getLogger('basicsr')
    if store.bit_depth != EIGHT_BITS:
        log.info(f'{store.root} is read, and not {beside}, which holds 8 bits')
        return None
    try:
        kind, records = read_records(beside)
    except UserError as error:
        log.warning(f'{store.root} is read, and not the LMDB beside it: {error}')
        return None
    if kind != Kind(RAW):
        return None
    files = {stem(name): (name, store.stamp(name)) for name in store.names()}
    if files != {key: (record.name, record.stamp) for key, record in records.items()}:
        log.warning(f'{store.root} is read, and not {beside}, which was made from other images')
        return None
    log.info(f'{beside} is read, which holds the pixels of {store.root}')
    return open_lmdb(beside)


class FolderStore:
    """A folder of image files; names are paths relative to it.

    Args:
        root: The folder.
        bit_depth: See :func:`open_store`.
    """

    def __init__(self, root: Path, bit_depth: int = 8) -> None:
        self.root, self.bit_depth = root, bit_depth
        self.forms: dict[str, Form] = {}  # of the images whose size was asked for

    def names(self) -> list[str]:
        """Names of all image files, those in sub-folders included; others are left out, and hidden ones."""
        found = [name for name in files_below(self.root) if Path(name).suffix.lower() in EXTENSIONS]
        # Without extensions first, as an LMDB's keys have none: both give the same order, and so the same patches.
        return sorted(found, key=lambda name: (Path(name).with_suffix('').as_posix(), name))

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) from the file's header, after the rotation that its EXIF data ask for."""
        header = header_of(self.root / name)
        self.forms[name] = Form(header.bits, len(header.frames))
        return header.height, header.width

    def stamp(self, name: str) -> list[int]:
        """Size in bytes of the file, and time of its last change in ns."""
        path = self.root / name
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}') from error
        return [status.st_size, status.st_mtime_ns]

    def content(self, name: str) -> bytes:
        """What is in the file."""
        path = self.root / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}') from error

    def read(self, name: str) -> NDArray[Any]:
        """Pixels, shape (H, W, 3), BGR: uint8, or float32 in [0, 1] of more bits."""
        where = str(self.root / name)
        if self.bit_depth == EIGHT_BITS:
            return decode(self.content(name), where)
        return decode_unit(self.content(name), where, self.bit_depth)

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        """A part of the pixels; the file is decoded whole."""
        return crop(self.read(name), top, left, height, width, str(self.root / name))
