"""Files that are whole or not there."""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import cv2
import torch
from numpy.typing import NDArray

from basicsr_clsd.errors import UserError

LONGEST_IN_TEMPORARY = 100  # bytes of a name; with what is added it stays below what any file system takes


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file under a temporary name in its folder, sync it to disk, and rename it.

    At every moment the path holds either what it held before or the whole new content, whatever happens to the process
    or the power. A temporary file left by a killed process is overwritten by the next attempt.

    Raises:
        OSError: The disk is full, the folder is read-only, ...; it names the path, which is as it was before.
    """
    temporary = hidden_path(path)
    try:
        with open(temporary, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:  # an error of an open file does not name it
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync(path.parent)


def hidden_path(path: Path, ending: str = 'tmp') -> Path:
    """The hidden path beside ``path`` by which a file or folder goes until it is whole; short, whatever the name is."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST_IN_TEMPORARY:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f'.{name}.{ending}')


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk, so that it stays so whatever happens to the power."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def save(content: Any, path: Path) -> None:
    """``torch.save``, atomically; a disk that is full, or too full for the content, is an ``OSError``."""
    check_free(path, tensor_bytes(content))

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's writer hides the errno of the file under it
            raise OSError(f'{path}: {str(error).splitlines()[0]}') from error

    write_atomically(path, write)


def check_free(path: Path, needed: int) -> None:
    """Raise an ``OSError`` that names a path, there or to be made, if its disk has less than ``needed`` bytes left."""
    absolute = path.absolute()
    try:
        free = shutil.disk_usage(next(part for part in (absolute, *absolute.parents) if part.exists())).free
    except OSError:
        return  # writing will tell what is wrong
    if free < needed:
        raise OSError(errno.ENOSPC, f'needs {needed / 2**20:.0f} MiB and the disk has {free / 2**20:.0f}', str(path))


def tensor_bytes(content: Any) -> int:
    """Memory of all tensors in nested containers: nearly the size of the file that holds them."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        content = content.values()
    elif not isinstance(content, list | tuple):
        return 0
    return sum(tensor_bytes(part) for part in content)


def write_image(image: NDArray[Any], path: Path) -> None:
    """Write an image, BGR or gray, in the format of the path's extension, atomically; folders are made.

    Args:
        image: uint8; for PNG and TIFF uint16, too.
        path: The file.

    Raises:
        OSError: It cannot be written.
    """
    encoded, content = cv2.imencode(path.suffix, image)
    if not encoded:
        raise OSError(f'{path}: the image cannot be encoded')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(content.tobytes(), path)


def read_text(path: Path) -> str:
    """The text of a user's file in UTF-8; the byte order mark that some editors put before it is no part of it."""
    return path.read_text(encoding='utf-8-sig')


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, atomically."""
    write_bytes(text.encode(), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, atomically."""

    def write(file: IO[bytes]) -> None:
        file.write(content)

    write_atomically(path, write)


def set_aside(folder: Path) -> Path | None:
    """Rename a folder that is in the way to ``NAME_archived_TIME``, so that nothing is overwritten.

    Returns:
        The new path; None if there was no such folder.
    """
    if not folder.exists():
        return None
    stamp = f'{folder.name}_archived_{time.strftime("%Y%m%d_%H%M%S")}'
    target = folder.with_name(stamp)
    count = 1
    while target.exists():
        target = folder.with_name(f'{stamp}_{count}')
        count += 1
    folder.rename(target)
    return target


def check_writable(folder: Path) -> None:
    """Raise a :class:`UserError` if a folder could not be made or written to, without making it."""
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f'{folder}: cannot be written ({parent} is not a folder that can be written to)')
