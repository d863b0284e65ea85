"""Zip and tar archives of checked checksum: unpacked whole or not at all, and nowhere but into their folder."""

import errno
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.runtime.files import check_free, hidden_path, sync

# What zipfile and tarfile raise for damaged archives, encrypted ones, and members that are not to be trusted.
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,
)
# What the system says of names that cannot be, or that are a file's and a folder's.
OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)


def unpack(archive: Path, folder: Path, progress: Callable[[Sequence[Any]], Iterable[Any]] = iter) -> None:
    """Unpack an archive (``.zip``, ``.tar``) into a new folder, which appears when everything is in it.

    A name that leads out of the folder refuses the archive, and so do a tar's links and devices; a zip's are files.

    Args:
        archive: The file.
        folder: The folder to make. If it is there, it is what an earlier call made, and nothing is done.
        progress: Wraps the members, to show how far it is.

    Raises:
        UserError: The archive is broken, cut off or not to be trusted; it is named.
        OSError: The disk is full, or is too small for the declared sizes.
    """
    if folder.exists():
        return
    if not archive.is_file():
        raise UserError(f'{archive}: no such file')
    unfinished = hidden_path(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with _opened(archive) as (members, size, extract):
            folder.parent.mkdir(parents=True, exist_ok=True)
            check_free(folder.parent, size)
            unfinished.mkdir()
            for member in progress(members):
                extract(member, unfinished)
        for path in (*unfinished.rglob('*'), unfinished):
            sync(path)
        os.replace(unfinished, folder)
    except (*BROKEN, OSError) as error:
        if not isinstance(error, OSError) or error.errno in OF_NAMES:
            raise UserError(f'{archive}: a broken or truncated archive, or not safe ({first_line(error)})') from error
        if error.filename is None:  # of a file that was being written
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Sequence[Any], int, Callable[[Any, Path], object]]]:
    """The members of an archive, their size in bytes, and what extracts one of them into a folder."""
    if archive.suffix == '.zip':
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            for name in (member.filename for member in members):
                if os.path.isabs(name) or '..' in Path(name).parts:  # zipfile would make it another name in silence
                    raise zipfile.BadZipFile(f'{name!r} leads out of the folder')
            yield members, sum(member.file_size for member in members), file.extract
    elif archive.suffix == '.tar':
        with tarfile.open(archive, 'r:') as file:
            members = file.getmembers()
            # tarfile takes a file that was cut off between two members, or a damaged header, for the end.
            file.fileobj.seek(file.offset)
            if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError('no end mark')
            yield members, sum(member.size for member in members), partial(file.extract, filter=_files_alone)
    else:
        raise UserError(f'{archive}: neither a .zip nor a .tar')


def _files_alone(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Python's ``data`` filter without its links."""
    if not (member.isreg() or member.isdir()):
        raise tarfile.SpecialFileError(member)
    return tarfile.data_filter(member, folder)
