"""Folders and LMDBs of images, read alike: names, sizes without decoding, pixels, patches."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from basicsr_clsd.data.lmdb import open_lmdb
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import EXTENSIONS, crop, decode, decode_unit
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


def open_store(root: str | Path, bit_depth: int = 8) -> ImageStore:
    """Open a folder of images or, if the folder's name ends in ``.lmdb``, an LMDB: of raw pixels, or BasicSR's.

    Args:
        root: Its path.
        bit_depth: Above 8, images are read in floating point: see :func:`~basicsr_clsd.images.codec.decode_unit`.

    Raises:
        UserError: It is not there, or is not what its name says.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'{root}: no such folder')
    if root.suffix != '.lmdb':
        return FolderStore(root, bit_depth)
    if bit_depth != EIGHT_BITS:
        raise UserError(f'{root}: images of an LMDB are read in 8 bits; for bit_depth {bit_depth} give their folder')
    return open_lmdb(root)


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
