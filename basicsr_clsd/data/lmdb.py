"""LMDBs of images: BasicSR's, of encoded images, and this project's, of raw pixels.

The layout of the latter is the project's own, since those of packages are of whole images: here a patch is read alone.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import check_inside, crop, decode
from basicsr_clsd.runtime.files import read_text

DATA = 'data.mdb'
META = 'meta_info.txt'
MARKER = b'\0'  # what kind of LMDB this is; with a name behind it, the record of an image
RAW = 'raw pixels: uint8, HWC, BGR'
VERSION = 1
# py-lmdb touches every page of a value that it hands out, so an image is not one value but one for each band of rows:
# from a memory map that is not in memory, little more is read than the rows that a patch lies in.
BAND_ROWS = 64

# lmdb refuses a second environment of one path in a process: one per path, shared by every store on it.
_environments: dict[str, lmdb.Environment] = {}
_lock = threading.RLock()  # no environment is closed while another thread reads its memory


def close_all() -> None:
    """Close what is open in this process; the next reading opens it again."""
    with _lock:
        while _environments:
            _environments.popitem()[1].close()


def _forget(root: Path) -> None:
    """Close the LMDB at this path, which may have been replaced by another since it was opened."""
    with _lock:
        environment = _environments.pop(str(root.resolve()), None)
        if environment is not None:
            environment.close()


def _before_fork() -> None:
    _lock.acquire()
    close_all()


# An environment must not cross a fork, and lmdb refuses to open one in the child that was open in the parent.
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)


class Kind(NamedTuple):
    """What an LMDB made by this project holds."""

    format: str
    version: int = VERSION
    band_rows: int = BAND_ROWS


class Record(NamedTuple):
    """What an LMDB made by this project says of one image: its size, and the file it was made from."""

    height: int
    width: int
    name: str
    stamp: list[int]


def open_lmdb(root: Path) -> 'PngLmdbStore | RawLmdbStore':
    """Open an LMDB of raw pixels, or BasicSR's, which has a ``meta_info.txt`` beside its data.

    Raises:
        UserError: It is neither, or cannot be read.
    """
    _forget(root)
    if not (root / META).exists():
        kind, records = read_records(root)
        if kind is not None:
            return RawLmdbStore(root, kind, records)
    return PngLmdbStore(root)


def read_records(root: Path) -> tuple[Kind | None, dict[str, Record]]:
    """What an LMDB says of itself and of its images, by name; None and nothing if this project did not make it.

    Raises:
        UserError: Not an LMDB, or not one that can be understood.
    """
    _forget(root)
    with reading(root) as transaction:
        return records_of(transaction, root)


def records_of(transaction: lmdb.Transaction, root: Path) -> tuple[Kind | None, dict[str, Record]]:
    """As :func:`read_records`, in a transaction that is open."""
    cursor, records = transaction.cursor(), {}
    if not cursor.set_key(MARKER):
        return None, {}
    try:
        kind = Kind(**json.loads(bytes(cursor.value())))
        while cursor.next() and bytes(cursor.key()).startswith(MARKER):
            records[bytes(cursor.key())[len(MARKER) :].decode()] = Record(*json.loads(bytes(cursor.value())))
    except (ValueError, TypeError) as error:
        raise UserError(f'{root}: what this LMDB says of itself cannot be read; make it again') from error
    return kind, records


def band_key(name: str, number: int) -> bytes:
    """The key of a band of rows in an LMDB of raw pixels."""
    return b'%s\0%04d' % (name.encode(), number)


@contextmanager
def reading(root: Path, path: str | None = None) -> Iterator[lmdb.Transaction]:
    """A transaction whose values are views of the memory map; they must not be used after it.

    Args:
        root: Folder of the LMDB, for messages.
        path: Where that is, without links.

    Raises:
        UserError: Not an LMDB, or one that was cut off.
    """
    path = path or str(root.resolve())
    try:
        with _lock, _opened(root, path).begin(buffers=True) as transaction:
            yield transaction
    except lmdb.Error as error:
        raise UserError(f'{root}: the LMDB cannot be read: {error}') from error


def _opened(root: Path, path: str) -> lmdb.Environment:
    """The environment of a path in this process."""
    if path in _environments:
        return _environments[path]
    try:
        environment = lmdb.open(path, readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise UserError(f'{root}: not a readable LMDB: {error}') from error
    try:
        check_length(environment, root)
    except UserError:
        environment.close()
        raise
    _environments[path] = environment
    return environment


def check_length(environment: lmdb.Environment, root: Path) -> None:
    """Raise a :class:`UserError` if the data were cut off: reading beyond their end would kill the process."""
    expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    if os.path.getsize(root / DATA) < expected:
        raise UserError(f'{root}: not a readable LMDB: {DATA} has less than its {expected} bytes')


class LmdbStore:
    """Images in an LMDB; pickled it holds no environment, and each process opens its own when it first reads.

    Args:
        root: The LMDB's folder.
        sizes: (height, width) of each image by name.
    """

    def __init__(self, root: Path, sizes: dict[str, tuple[int, int]]) -> None:
        self.root = root
        self._path = str(root.resolve())
        self._sizes = sizes

    def names(self) -> list[str]:
        """Names of all images, sorted."""
        return sorted(self._sizes)

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) as the LMDB's list of images has it."""
        return self._sizes[name]

    def stamp(self, name: str) -> list[int]:
        """Size in bytes of the LMDB, and time of its last change in ns."""
        status = (self.root / DATA).stat()
        return [status.st_size, status.st_mtime_ns]


class PngLmdbStore(LmdbStore):
    """BasicSR's LMDB of encoded images; names are its keys, listed with their sizes in ``meta_info.txt``."""

    def __init__(self, root: Path) -> None:
        sizes = {}
        meta = root / META
        try:
            lines = read_text(meta).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else 'not a text file'
            raise UserError(f'{meta}: cannot be read ({reason}); is this an LMDB made by BasicSR?') from error
        for line in filter(None, lines):
            try:
                name, rest = line.rsplit(' (', 1)
                height, width = (int(number) for number in rest.split(')')[0].split(',')[:2])
            except ValueError as error:
                raise UserError(f"{meta}: expected lines like 'name.png (480,480,3) 1', not {line!r}") from error
            sizes[Path(name).with_suffix('').as_posix()] = (height, width)
        super().__init__(root, sizes)

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8."""
        with reading(self.root, self._path) as transaction:
            content = transaction.get(name.encode())
            if content is None:
                raise UserError(f'{self.root}: {name} is in {META} but not in the LMDB')
            content = bytes(content)
        return decode(content, f'{self.root}: {name}')

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """A part of the pixels; the image is decoded whole."""
        return crop(self.read(name), top, left, height, width, f'{self.root}: {name}')


class RawLmdbStore(LmdbStore):
    """An LMDB of raw pixels: a patch is copied out of the memory map, and nothing is decoded.

    Each image is uint8, HWC, BGR, in bands of rows under :func:`band_key`.
    """

    def __init__(self, root: Path, kind: Kind, records: dict[str, Record]) -> None:
        if (kind.format, kind.version) != (RAW, VERSION) or kind.band_rows < 1:
            raise UserError(f'{root}: an LMDB of version {kind.version} of {kind.format!r}; make it again')
        super().__init__(root, {name: (record.height, record.width) for name, record in records.items()})
        self._band_rows = kind.band_rows

    def read(self, name: str) -> NDArray[np.uint8]:
        """Pixels, shape (H, W, 3), BGR, uint8."""
        return self.patch(name, 0, 0, *self._sizes[name])

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """A part of the pixels, (height, width, 3), in memory of its own; only the rows that hold it are touched."""
        image_height, image_width = size = self._sizes[name]
        check_inside(size, top, left, height, width, f'{self.root}: {name}')
        pixels, rows, row_bytes = np.empty((height, width, 3), np.uint8), self._band_rows, 3 * image_width
        with reading(self.root, self._path) as transaction:
            for number in range(top // rows, (top + height - 1) // rows + 1):
                first = number * rows
                content = transaction.get(band_key(name, number))
                if content is None or len(content) != min(rows, image_height - first) * row_bytes:
                    raise UserError(f'{self.root}: {name} is not in the LMDB as its record says; make it again')
                start, end = max(top, first), min(top + height, first + rows)
                place = (start - first) * row_bytes + 3 * left
                part = np.ndarray((end - start, width, 3), np.uint8, content, place, (row_bytes, 3, 1))
                pixels[start - top : end - top] = part
        return pixels
