"""Folders and LMDBs of images, read alike: names, sizes without decoding, pixels."""

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Protocol

import cv2
import lmdb
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from basicsr_clsd.errors import UserError

EXTENSIONS = frozenset({'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'})
JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
PNG_START, PNG_LAST_CHUNK = b'\x89PNG\r\n\x1a\n', b'IEND'
EXIF_ORIENTATION = 0x0112
TURNED_ORIENTATIONS = (5, 6, 7, 8)  # those that swap height and width
TIFF_WIDTH, TIFF_HEIGHT = 256, 257

# What is wrong with an image is told by an exception that names the file, not by OpenCV on standard error.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


# What Pillow raises for the headers of damaged files.
HEADER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)


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
        whole = bool(content) and not (content.startswith(PNG_START) and _png_is_damaged(content))
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if whole else None
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f'{where}: not an image that can be decoded (broken or truncated)')
    return image.astype(np.uint8, copy=False)


def _png_is_damaged(content: bytes) -> bool:
    """Whether a chunk that decoding needs is cut off or altered; libpng would say so on standard error itself."""
    view, start = memoryview(content), len(PNG_START)
    while start + 12 <= len(content):
        length, kind = struct.unpack_from('>I4s', content, start)
        end = start + 8 + length
        needed = kind[:1].isupper()
        if needed and (end + 4 > len(content) or zlib.crc32(view[start + 4 : end]) != _number(content, end)):
            return True
        if kind == PNG_LAST_CHUNK:
            return False
        start = end + 4
    return True


def _number(content: bytes, start: int) -> int:
    return struct.unpack_from('>I', content, start)[0]


def _decoded_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an opened image after the rotation that its EXIF data ask for, without decoding it."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # some versions of Pillow turn these by themselves
        width, height = image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
    # Pillow would decode a PNG without EXIF data to look for some behind its pixels.
    has_exif = not isinstance(image, PngImageFile) or 'exif' in image.info
    turned = has_exif and image.getexif().get(EXIF_ORIENTATION) in TURNED_ORIENTATIONS
    return (width, height) if turned else (height, width)


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
        # Without extensions first, as an LMDB's keys have none: both give the same order, and so the same patches.
        return sorted(found, key=lambda name: (Path(name).with_suffix('').as_posix(), name))

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) from the file's header, after the rotation that its EXIF data ask for."""
        path = self.root / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # of Pillow, on what is odd in a header
                with Image.open(path) as image:
                    return _decoded_size(image)
        except HEADER_ERRORS as error:
            raise UserError(f'{path}: not an image that can be decoded (broken or truncated)') from error

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8."""
        path = self.root / name
        try:
            return decode(path.read_bytes(), str(path))
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}') from error


class LmdbStore:
    """BasicSR's LMDB of encoded images; names are its keys, listed with their sizes in ``meta_info.txt``."""

    # lmdb refuses a second environment of one path in a process: one per path, shared by every store on it.
    _environments: dict[str, lmdb.Environment] = {}

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sizes: dict[str, tuple[int, int]] = {}
        meta = root / 'meta_info.txt'
        try:
            lines = meta.read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else 'not a text file'
            raise UserError(f'{meta}: cannot be read ({reason}); is this an LMDB made by BasicSR?') from error
        for line in filter(None, lines):
            try:
                name, rest = line.rsplit(' (', 1)
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
        try:
            with self._environment().begin(write=False) as transaction:
                content = transaction.get(name.encode())
        except lmdb.Error as error:
            raise UserError(f'{self.root}: {name} cannot be read from the LMDB: {error}') from error
        if content is None:
            raise UserError(f'{self.root}: {name} is in meta_info.txt but not in the LMDB')
        return decode(bytes(content), f'{self.root}: {name}')

    def _environment(self) -> lmdb.Environment:
        path = str(self.root.resolve())
        if path not in self._environments:
            try:
                environment = lmdb.open(path, readonly=True, lock=False, readahead=False, meminit=False)
            except lmdb.Error as error:
                raise UserError(f'{self.root}: not a readable LMDB: {error}') from error
            # Reading beyond the end of a copy that was cut off would kill the process.
            expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
            if os.path.getsize(self.root / 'data.mdb') < expected:
                environment.close()
                raise UserError(f'{self.root}: not a readable LMDB: data.mdb has less than its {expected} bytes')
            self._environments[path] = environment
        return self._environments[path]

    @classmethod
    def close_all(cls) -> None:
        """Close what is open; the next :meth:`read` opens it again."""
        while cls._environments:
            cls._environments.popitem()[1].close()


# An environment must not cross a fork, and lmdb refuses to open one in the child that was open in the parent.
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=LmdbStore.close_all)
