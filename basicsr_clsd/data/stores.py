"""Folders and LMDBs of images, read alike: names, sizes without decoding, pixels, patches."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.data.lmdb import open_lmdb
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import EXTENSIONS, crop, decode
from basicsr_clsd.images.header import header_size
from basicsr_clsd.runtime.folders import files_below


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

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8; gray becomes three equal channels, alpha is dropped."""
        ...

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """A part of :meth:`read`'s pixels, (height, width, 3), BGR, uint8, in memory of its own.

        Raises:
            UserError: The image cannot be read, or the patch reaches beyond it.
        """
        ...


def open_store(root: str | Path) -> ImageStore:
    """Open a folder of images or, if the folder's name ends in ``.lmdb``, an LMDB: of raw pixels, or BasicSR's.

    Raises:
        UserError: It is not there, or is not what its name says.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root}: no such folder')
    return open_lmdb(root) if root.suffix == '.lmdb' else FolderStore(root)


class FolderStore:
    """A folder of image files; names are paths relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Names of all image files, those in sub-folders included; others are left out, and hidden ones."""
        found = [name for name in files_below(self.root) if Path(name).suffix.lower() in EXTENSIONS]
        # Without extensions first, as an LMDB's keys have none: both give the same order, and so the same patches.
        return sorted(found, key=lambda name: (Path(name).with_suffix('').as_posix(), name))

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) from the file's header, after the rotation that its EXIF data ask for."""
        return header_size(self.root / name)

    def stamp(self, name: str) -> list[int]:
        """Size in bytes of the file, and time of its last change in ns."""
        path = self.root / name
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}') from error
        return [status.st_size, status.st_mtime_ns]

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8."""
        path = self.root / name
        try:
            return decode(path.read_bytes(), str(path))
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}') from error

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """A part of the pixels; the file is decoded whole."""
        return crop(self.read(name), top, left, height, width, str(self.root / name))
