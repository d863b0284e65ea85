"""Locks between processes, on all machines of a file system; a lock ends with its process, however that ends."""

import errno
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.distributed import Processes
from basicsr_clsd.runtime.files import check_writable, hidden_path

# What file systems without locks say, and NFS where its lock service does not run.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
MOMENT_S = 0.2  # in which who has just got the lock writes its name
BOOT_ID = Path('/proc/sys/kernel/random/boot_id')  # of Linux


class Holder(NamedTuple):
    """A process that holds a lock, as the lock's file names it.

    Args:
        host: Name of its machine.
        boot_id: What Linux calls this start of the machine; containers of one machine share it. Empty on other systems.
        pid: Process ID.
    """

    host: str
    boot_id: str
    pid: int

    def __str__(self) -> str:
        return f'process {self.pid} on {self.host}'


def lock_path(path: Path) -> Path:
    """The lock of a folder or file that may be renamed while it is held: a hidden file beside it."""
    return hidden_path(path, 'lock')


@contextmanager
def held(folder: Path, processes: Processes) -> Iterator[None]:
    """Keep other runs out of an output folder, which may be made, renamed and made anew meanwhile.

    Args:
        folder: Need not be there.
        processes: Those of this run; the main one holds the lock.

    Raises:
        UserError: Another process holds it, which is named, or the folder could not be written. Nothing was touched.
    """
    with ExitStack() as stack:
        with processes.together():
            if processes.main:
                check_writable(folder)
                stack.enter_context(_parents(folder))
                stack.enter_context(exclusive(lock_path(folder), folder, 'is writing to it; use another name'))
        yield


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders that a path is to lie in; those that are empty at the end are removed again."""
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # there is something in it now
            for parent in made:
                parent.rmdir()


@contextmanager
def exclusive(file: Path, what: Path | str, busy: str | None = None) -> Iterator[None]:
    """Hold a lock, which is a file that names its holder; it is removed at the end.

    The operating system ends the lock of a killed process, so a file that such a process left keeps nobody waiting.
    Where the file system has no locks, a warning is logged, and the work goes on without one.

    Args:
        file: The lock; its folder must be there.
        what: What it protects, for messages.
        busy: What its holder does, as in ``is training this run``; None waits until the lock is free.

    Raises:
        UserError: Another process holds the lock, and ``busy`` is given.
        OSError: The file cannot be written.
    """
    log = logging.getLogger('basicsr')
    earlier = _read(file)  # before the lock, for some versions of filelock empty the file
    lock = FileLock(file, timeout=-1 if busy is None else MOMENT_S, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f'{what}: {_read(file) or "another process"} {busy}') from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        file.unlink(missing_ok=True)
        log.warning(f'{what}: its file system has no locks ({error.strerror}), so nothing keeps a second process away')
        yield
        return
    me = _this_process()
    try:
        if earlier is not None and earlier.host != me.host and earlier.boot_id != me.boot_id:
            log.warning(f'{what}: {earlier} had it and did not end in order; if it still runs, end one of the two')
        with suppress(OSError):  # of a full disk; the lock holds without its name
            file.write_text(json.dumps(me._asdict()), encoding='utf-8')
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: who has opened it meanwhile finds it gone, and tries again
        lock.release()


def _this_process() -> Holder:
    boot = BOOT_ID.read_text(encoding='ascii').strip() if BOOT_ID.exists() else ''
    return Holder(platform.node(), boot, os.getpid())


def _read(file: Path) -> Holder | None:
    try:
        return Holder(**json.loads(file.read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError):
        return None
