"""The files below a folder, links to folders included."""

import os
from collections.abc import Iterator
from pathlib import Path

from basicsr_clsd.errors import UserError

Identity = tuple[int, int]  # of a folder, whatever links lead to it


def files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, sorted; hidden files and folders are left out.

    A folder that is not there has none. Links to folders are followed. Each folder is looked into once: by its own path
    where that lies below ``folder``, else by the first of the links to it. A link to a folder that it lies in leads in
    a circle, and is left out.

    Raises:
        UserError: A folder cannot be read, so that its files would be missing in silence.
    """
    if not folder.exists():
        return []
    found: list[str] = []
    seen = {_identity(folder)}
    waiting = [folder]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            for path, files, linked in _walk(start, seen):
                found += [(path / name).relative_to(folder).as_posix() for name in files]
                links += linked
        waiting = [link for link in sorted(links) if not _is_circle(link) and _is_new(link, seen)]
    return sorted(found)


def _walk(start: Path, seen: set[Identity]) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Each folder below ``start``, with the names of its files and its links to folders; no link is followed."""
    for root, folders, files in os.walk(start, onerror=_refuse):
        path = Path(root)
        shown = [path / name for name in folders if not name.startswith('.')]
        folders[:] = [each.name for each in shown if not each.is_symlink() and _is_new(each, seen)]
        yield path, [name for name in files if not name.startswith('.')], [each for each in shown if each.is_symlink()]


def _is_new(folder: Path, seen: set[Identity]) -> bool:
    """Whether a folder was not seen before; from now on it was."""
    identity = _identity(folder)
    new = identity not in seen
    seen.add(identity)
    return new


def _identity(folder: Path) -> Identity:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(error) from error
    return status.st_dev, status.st_ino


def _is_circle(link: Path) -> bool:
    return link.parent.resolve().is_relative_to(link.resolve())


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> UserError:
    return UserError(f'{error.filename}: cannot be read: {error.strerror}')
