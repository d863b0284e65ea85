"""What preparing a published data set takes, whichever it is: a folder of its own, archives, a bar."""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.archives import unpack
from basicsr_clsd.prepare.download import RemoteFile, obtain
from basicsr_clsd.runtime.files import check_writable

# Beside each folder of images: an LMDB of raw pixels, nothing, or an LMDB of PNG images.
Storage = Literal['raw', 'folder', 'png-lmdb']
ARCHIVES, UNPACKED = 'archives', '.unpacked'
MADE_FROM = 'made_from.json'  # in a set: what it was made from


@contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Make a folder and keep other commands that prepare data from writing to it.

    Raises:
        UserError: It cannot be written to, or another command is at work in it.
    """
    check_writable(root)
    root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, os.O_RDONLY)  # a lock ends with its process, however that ends
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f'{root}: another command is preparing data there; let it end first') from error
        yield
    finally:
        os.close(folder)


def unpacked_folder(remote: RemoteFile, home: Path) -> Path:
    """Where an archive is unpacked; another one by the same name goes elsewhere."""
    digest = remote.checksum.partition(':')[2]
    return home / UNPACKED / f'{remote.name}.{digest[:8]}'


def unpacked(remote: RemoteFile, home: Path, downloads: Path, given: Path | None, console: Console) -> Path:
    """The folder with the content of an archive, which is obtained and unpacked unless that has been done.

    Raises:
        UserError: See :func:`~basicsr_clsd.prepare.download.obtain` and :func:`~basicsr_clsd.prepare.archives.unpack`.
        OSError: See there.
    """
    folder = unpacked_folder(remote, home)
    if not folder.exists():
        archive = obtain(remote, downloads, given, console)
        unpack(archive, folder, bar(console, f'Unpacking {archive.name}'))
        console.print(f'Unpacked {archive}', highlight=False)
    return folder


def bar(console: Console, what: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """``bar(console, what)(items)`` gives the items and shows on a terminal how far they are."""
    return lambda items: track(items, what, console=console, disable=not console.is_terminal)


def refuse(faults: Sequence[str], where: Path | str, advice: str, console: Console) -> None:
    """List all faults, and raise a :class:`UserError` if there is one."""
    for fault in faults:
        console.print(fault, highlight=False, markup=False)
    if faults:
        number = '1 fault' if len(faults) == 1 else f'{len(faults)} faults'
        raise UserError(f'{where}: {number}, listed above; {advice}')
