"""Zip and tar archives: unpacked whole or not at all, and nowhere but into their folder."""

import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.runtime.files import check_free, hidden_path, write_atomically

LONGEST_NAME = 200  # of the 255 bytes of a file's name; a temporary one is longer
ENCRYPTED = 0x1
FILE, FOLDER = 'file', 'folder'
CHUNK = 1 << 20

# What zipfile and tarfile raise for damaged archives.
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive, as the archive has it.

    Args:
        name: Path, unchecked.
        size: Declared size of the unpacked file in bytes.
        kind: ``FILE``, ``FOLDER``, or in words what else it is.
        open: Opens its content.
    """

    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, progress: Callable[[Sequence[Member]], Iterable[Member]] = iter) -> None:
    """Unpack an archive (``.zip``, ``.tar``) into a new folder.

    All members are checked before the first is written; one that is neither a file nor a folder, or would lie outside
    the folder, refuses the archive. The folder appears under its name when everything is in it and on the disk.

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
    partial = hidden_path(folder)
    if partial.exists():
        shutil.rmtree(partial)
    with _members(archive) as members:
        paths = _checked_paths(archive, members)
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_free(folder.parent, sum(member.size for member in members))
        try:
            partial.mkdir()
            for member in progress(members):
                _write(member, partial / paths[member.name])
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    os.replace(partial, folder)


@contextmanager
def _members(archive: Path) -> Iterator[list[Member]]:
    """The members of an archive; what goes wrong with it while they are used is told as the archive's fault."""
    kinds = {'.zip': _zip_members, '.tar': _tar_members}
    if archive.suffix not in kinds:
        raise UserError(f'{archive}: neither a .zip nor a .tar')
    if not archive.is_file():
        raise UserError(f'{archive}: no such file')
    try:
        with contextmanager(kinds[archive.suffix])(archive) as members:
            yield members
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # of a file that was being written
            raise
        raise UserError(f'{archive}: a broken or truncated archive ({first_line(error)})') from error


def _zip_members(archive: Path) -> Iterator[list[Member]]:
    with zipfile.ZipFile(archive) as file:
        members = []
        for info in file.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            kind = FOLDER if info.is_dir() else FILE
            if mode not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
                kind = 'a link' if mode == stat.S_IFLNK else 'a special file'
            elif info.flag_bits & ENCRYPTED:
                kind = 'encrypted'
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                kind = 'compressed in a way that is not supported'
            members.append(Member(info.orig_filename, info.file_size, kind, lambda info=info: file.open(info)))
        yield members


def _tar_members(archive: Path) -> Iterator[list[Member]]:
    with tarfile.open(archive, 'r:') as file:
        infos = file.getmembers()
        # tarfile takes a file that was cut off between two members, or a damaged header, for the end.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError('no end mark')
        members = []
        for info in infos:
            kind = FOLDER if info.isdir() else FILE
            if info.issym() or info.islnk():
                kind = 'a link'
            elif info.issparse() or not (info.isreg() or info.isdir()):
                kind = 'a special file'
            members.append(Member(info.name, info.size, kind, lambda info=info: file.extractfile(info)))
        yield members


def _checked_paths(archive: Path, members: Sequence[Member]) -> dict[str, PurePosixPath]:
    """Where in the folder each member goes, or a :class:`UserError` that names the first that may not go there."""
    files: set[PurePosixPath] = set()
    for member in members:
        fault = _fault(member)
        path = _folded(member)
        if member.kind == FILE:
            fault = fault or ('is there twice' if path in files else '')
            files.add(path)
        if fault:
            raise UserError(f'{archive}: refused, since {member.name!r} in it {fault}')
    for member in members:
        folders = _folded(member).parents if member.kind == FILE else (_folded(member), *_folded(member).parents)
        if files.intersection(folders):
            raise UserError(f'{archive}: refused, since {member.name!r} in it lies below a file')
    return {member.name: PurePosixPath(member.name) for member in members}


def _folded(member: Member) -> PurePosixPath:
    """The path without upper and lower case, which some disks do not tell apart."""
    return PurePosixPath(member.name.casefold())


def _fault(member: Member) -> str:
    """Why a member may not be unpacked; empty if it may."""
    path = PurePosixPath(member.name)
    faults = {
        f'is {member.kind}': member.kind not in (FILE, FOLDER),
        'has an absolute name': path.is_absolute() or re.match('[A-Za-z]:', member.name),
        'leads out of the folder': '..' in path.parts,
        'has no name': member.kind == FILE and not path.parts,
        'has characters in its name that no image has': '\\' in member.name or not member.name.isprintable(),
        'has too long a name': any(len(part.encode(errors='replace')) > LONGEST_NAME for part in path.parts),
    }
    return next((fault for fault, found in faults.items() if found), '')


def _write(member: Member, path: Path) -> None:
    if member.kind == FOLDER:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(file: IO[bytes]) -> None:
        content = member.open()
        assert content is not None  # noqa: S101  (it is a regular file)
        with content:
            shutil.copyfileobj(content, file, CHUNK)
        if file.tell() != member.size:
            raise EOFError(f'{member.name} is cut off')

    write_atomically(path, write)
