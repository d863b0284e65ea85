"""Folders and LMDBs of images, read alike: names, sizes without decoding, pixels."""

import os
import struct
from pathlib import Path
from typing import Protocol

import cv2
import lmdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from basicsr_clsd.errors import UserError

EXTENSIONS = frozenset({'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'})
JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
EXIF_ORIENTATION = 0x0112
FIRST_TURNED_ORIENTATION = 5  # 5 to 8 swap height and width


class ImageStore(Protocol):
    """Images under names; the same whatever holds them."""

    root: Path

    def names(self) -> list[str]:
        """Names of all images, sorted."""
        ...

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) of an image, from its header."""
        ...

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8; gray becomes three equal channels, alpha is dropped."""
        ...


def open_store(root: str | Path) -> ImageStore:
    """Open a folder of images, or an LMDB (a folder whose name ends in ``.lmdb``) in BasicSR's layout.

    Raises:
        UserError: It is not there, or is not what its name says.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root}: no such folder')
    return LmdbStore(root) if root.suffix == '.lmdb' else FolderStore(root)


def decode(content: bytes, where: str) -> NDArray[np.uint8]:
    """Decode an encoded image to BGR uint8 (H, W, 3), or raise a :class:`UserError` that names it."""
    # OpenCV fills the missing rest of a JPEG with gray and says nothing that a program could see.
    if content.startswith(JPEG_START) and JPEG_END not in content[-4096:]:
        raise UserError(f'{where}: truncated image')
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f'{where}: not an image that can be decoded (broken or truncated)')
    return image.astype(np.uint8, copy=False)


class FolderStore:
    """A folder of image files; names are paths relative to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Names of all image files, those in sub-folders included; others are left out, and hidden ones."""
        found = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith('.')]
            below = Path(folder).relative_to(self.root)
            found += [
                (below / name).as_posix()
                for name in files
                if Path(name).suffix.lower() in EXTENSIONS and not name.startswith('.')
            ]
        return sorted(found)

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) from the file's header, after the rotation that its EXIF data ask for."""
        path = self.root / name
        try:
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(EXIF_ORIENTATION, 1) >= FIRST_TURNED_ORIENTATION
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, struct.error) as error:
            raise UserError(f'{path}: not an image that can be decoded (broken or truncated)') from error
        return (width, height) if turned else (height, width)

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8."""
        path = self.root / name
        try:
            return decode(path.read_bytes(), str(path))
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}') from error


class LmdbStore:
    """BasicSR's LMDB of encoded images; names are its keys, listed with their sizes in ``meta_info.txt``."""

    # lmdb refuses a second environment of one path in a process, and one must not cross a fork: one per process and
    # path, shared by every store on it.
    _environments: dict[tuple[int, str], lmdb.Environment] = {}

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sizes: dict[str, tuple[int, int]] = {}
        meta = root / 'meta_info.txt'
        try:
            lines = meta.read_text(encoding='utf-8').splitlines()
        except OSError as error:
            raise UserError(f'{meta}: cannot be read ({error.strerror}); is this an LMDB made by BasicSR?') from error
        for line in filter(None, lines):
            try:
                name, rest = line.split(' (', 1)
                height, width = (int(number) for number in rest.split(')')[0].split(',')[:2])
            except ValueError as error:
                raise UserError(f"{meta}: expected lines like 'name.png (480,480,3) 1', not {line!r}") from error
            self._sizes[Path(name).with_suffix('').as_posix()] = (height, width)

    def names(self) -> list[str]:
        """All keys."""
        return sorted(self._sizes)

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) as ``meta_info.txt`` has it."""
        return self._sizes[name]

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8."""
        with self._environment().begin(write=False) as transaction:
            content = transaction.get(name.encode())
        if content is None:
            raise UserError(f'{self.root}: {name} is in meta_info.txt but not in the LMDB')
        return decode(bytes(content), f'{self.root}: {name}')

    def _environment(self) -> lmdb.Environment:
        key = (os.getpid(), str(self.root.resolve()))
        if key not in self._environments:
            try:
                self._environments[key] = lmdb.open(key[1], readonly=True, lock=False, readahead=False, meminit=False)
            except lmdb.Error as error:
                raise UserError(f'{self.root}: not a readable LMDB: {error}') from error
        return self._environments[key]
