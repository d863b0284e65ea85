"""Output folders that one process at a time writes to."""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.distributed import Processes
from basicsr_clsd.runtime.files import check_writable

MOMENT_S = 0.2
BOOT_ID = Path('/proc/sys/kernel/random/boot_id')  # of Linux: another after each start of the machine


@contextmanager
def held(folder: Path, processes: Processes) -> Iterator[None]:
    """Keep other runs out of an output folder, which may be made, renamed and made anew meanwhile.

    The lock is a file beside the folder, ``.NAME.lock``, that names the process. It is a POSIX record lock: the
    operating system takes it back when the process ends, however it does, a forked loader process does not inherit it
    (as it would a ``flock``), and NFS hands it to its server, so that it holds for all machines.

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
                stack.enter_context(_locked(folder))
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder.with_name(f'.{folder.name}.lock')
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is free, else it might be the next holder's
        os.close(file)
        with suppress(OSError):  # there is something in it now
            for parent in made:
                parent.rmdir()


def _acquire(path: Path, folder: Path) -> int:
    """Open and lock a file; returns its descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            time.sleep(MOMENT_S)  # it may be about to write its name
            owner = _owner(file)
            os.close(file)
            raise UserError(f'{folder}: {_described(owner)} is writing to it; use another name') from error
        except OSError as error:
            logging.getLogger('basicsr').warning(
                f'{folder}: its file system has no locks ({error.strerror}); nothing keeps a second run out of it'
            )
        if _is_at(file, path):
            break
        os.close(file)  # the holder has just removed it
    _warn_of_other_machine(_owner(file), folder)
    content = {'host': socket.gethostname(), 'boot_id': _boot_id(), 'pid': os.getpid(), 'since': time.time()}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(content).encode(), 0)
    return file


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(file: int) -> dict[str, Any]:
    """Who has written its name into a lock and not taken it out again; empty if nobody or not readable."""
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        return {'host': str(owner['host']), 'boot_id': str(owner['boot_id']), 'pid': int(owner['pid'])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _described(owner: dict[str, Any]) -> str:
    return f'process {owner["pid"]} on {owner["host"]}' if owner else 'another process'


def _warn_of_other_machine(owner: dict[str, Any], folder: Path) -> None:
    """A killed process of this machine is known to be gone; one of another machine only if locks reach it."""
    if owner and (owner['host'], owner['boot_id']) != (socket.gethostname(), _boot_id()):
        logging.getLogger('basicsr').warning(
            f'{folder}: {_described(owner)} was writing to it and did not end in order; if that is another machine '
            'where it still runs, the file system does not share locks between machines: end one of the two'
        )


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text(encoding='ascii').strip()
    except OSError:
        return ''
