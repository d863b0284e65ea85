"""What preparing any data set takes: a folder of its own, whole or not there; archives; a bar; a list of faults."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.archives import unpack
from basicsr_clsd.prepare.download import RemoteFile, fetch
from basicsr_clsd.runtime.files import check_writable, hidden_path, sync, write_text
from basicsr_clsd.runtime.locks import exclusive, lock_path

# Beside each folder of images: an LMDB of raw pixels, nothing, or an LMDB of PNG images.
Storage = Literal['raw', 'folder', 'png-lmdb']
ARCHIVES, UNPACKED = 'archives', '.unpacked'
MADE_FROM = 'made_from.json'  # in a set: what it was made from
BUSY = 'is preparing data there; let it end first'


@contextmanager
def prepared_folder(root: Path) -> Iterator[None]:
    """Make a folder and keep other commands that prepare data from writing to it.

    Raises:
        UserError: It cannot be written to, or another command is at work in it.
    """
    check_writable(root)
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / '.lock', root, BUSY):
        yield


def unpacked_folder(remote: RemoteFile, home: Path) -> Path:
    """Where an archive is unpacked; another one by the same name goes elsewhere."""
    digest = remote.checksum.partition(':')[2]
    return home / UNPACKED / f'{remote.name}.{digest[:8]}'


def unpacked(remote: RemoteFile, home: Path, downloads: Path, given: Path | None, console: Console) -> Path:
    """The folder with the content of an archive, which is obtained and unpacked unless that has been done.

    Raises:
        UserError: See :func:`~basicsr_clsd.prepare.download.fetch` and :func:`~basicsr_clsd.prepare.archives.unpack`.
        OSError: See there.
    """
    folder = unpacked_folder(remote, home)
    if not folder.exists():
        archive = fetch(remote, downloads, given, console)
        unpack(archive, folder, bar(console, f'Unpacking {archive.name}'))
        console.print(f'Unpacked {archive}', highlight=False)
    return folder


def bar(console: Console, what: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """``bar(console, what)(items)`` gives the items and shows on a terminal how far they are."""
    return lambda items: track(items, what, console=console, disable=not console.is_terminal)


def raise_faults(faults: Sequence[str], where: Path | str, advice: str, console: Console) -> None:
    """List all faults, and raise a :class:`UserError` if there is one."""
    for fault in faults:
        console.print(fault, highlight=False, markup=False)
    if faults:
        number = '1 fault' if len(faults) == 1 else f'{len(faults)} faults'
        raise UserError(f'{where}: {number}, listed above; {advice}')


@contextmanager
def staged(target: Path, settings: Mapping[str, Any], sources: Mapping[str, list[int]]) -> Iterator[Path | None]:
    """Give a hidden folder beside ``target`` to fill; it becomes ``target`` when the block ends without an error.

    If the block does not end, however that is, what it has put there is given again to the next call with the same
    settings and sources, and cleared away by one with others.

    Args:
        target: The folder to make.
        settings: What else than the sources decides on its content; values that JSON keeps as they are.
        sources: Size and time of the last change of each file it is made from.

    Yields:
        The folder to fill; None if ``target`` is there and was made from the same.

    Raises:
        UserError: Something else is at ``target``, or another command fills it.
    """
    made_from = {'settings': dict(settings), 'sources': dict(sources)}
    check_writable(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = hidden_path(target)
    with exclusive(lock_path(target), target, BUSY):
        if is_made(target, settings, sources):
            yield None
            return
        hidden.mkdir(exist_ok=True)
        if _read(hidden) != made_from:
            (hidden / MADE_FROM).unlink(missing_ok=True)  # first: it vouches for the rest
            for path in hidden.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_text(json.dumps(made_from, indent=0), hidden / MADE_FROM)
        yield hidden
        sync(hidden)
        os.rename(hidden, target)
        sync(target.parent)


def is_made(target: Path, settings: Mapping[str, Any], sources: Mapping[str, list[int]]) -> bool:
    """Whether the target is there and made from this; something else in its place is a :class:`UserError`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found = _read(target)
    if found is None:
        raise UserError(f'{target}: is there already, and not made by this command; choose another folder')
    for key, value in settings.items():
        if found['settings'].get(key) != value:
            before = found['settings'].get(key)
            raise UserError(f'{target}: was made with {key} {before}, not {value}; choose another folder')
    before = found['sources']
    for name in sorted(before.keys() | sources.keys()):
        if before.get(name) != sources.get(name):
            how = 'without' if name not in before else 'before a change of' if name in sources else 'with the former'
            raise UserError(f'{target}: was made {how} {name}; choose another folder')
    return True


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / MADE_FROM).read_text(encoding='utf-8'))
        return {key: dict(content[key]) for key in ('settings', 'sources')}
    except (OSError, ValueError, LookupError, TypeError):
        return None
