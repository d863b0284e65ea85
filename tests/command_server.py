"""Starts this project's commands in a moment: imports once what they import, then forks for each of them.

Reads one JSON object a line from standard input and answers with the exit code of the command (negative: the signal
that ended it). The forked process runs the command's file as ``__main__`` in a session of its own, and may be told to
have an accident on the way: see :func:`arrange`.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # as the commands do when they are run as files

LIMIT_S = 300


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # a forked process need not look through all of this for garbage
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(become(job))  # taking everything down that was imported would last longer than the command
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f'{os.waitstatus_to_exitcode(status)}\n')
        sys.stdout.flush()
    os._exit(0)


def become(job: Mapping[str, Any]) -> int:
    """Be the command until it has ended; return its exit code."""
    os.setsid()
    signal.alarm(LIMIT_S)
    os.chdir(job['cwd'])
    os.environ.clear()
    os.environ.update(job['env'])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, path in ((1, job['out']), (2, job['err'])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = job['argv']
    arrange(**job['accident'])
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def kill_all() -> None:
    """Die at once, loader processes included, as by ``kill -9``."""
    os.killpg(0, signal.SIGKILL)


def arrange(
    at_event: int | None = None,
    count_to: str | None = None,
    before: str | None = None,
    half_written: str | None = None,
    path: str | None = None,
    file_limit: int | None = None,
) -> None:
    """Prepare an accident.

    Args:
        at_event: Be killed at this call or return of a Python or C function, counted from the start.
        count_to: File to write the number of all those events to, at the end.
        before: ``os.replace`` or ``os.fsync``: be killed when it is about to be applied to the file ``path``.
        half_written: Be killed when this file has some content, before the next function call.
        path: See ``before``.
        file_limit: No file may become larger than this many bytes, as on a full disk.
    """
    if at_event is not None or count_to is not None:
        watch(at_event, count_to)
    if half_written is not None:
        sys.setprofile(lambda frame, event, arg: kill_all() if has_content(half_written) else None)
    if before is not None:
        name = before.removeprefix('os.')
        setattr(os, name, deadly(getattr(os, name), str(path)))
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))


def watch(at_event: int | None, count_to: str | None) -> None:
    events = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal events
        events += 1
        if events == at_event:
            kill_all()

    if count_to is not None:
        atexit.register(lambda: Path(count_to).write_text(str(events), encoding='utf-8'))
    sys.setprofile(count)


def has_content(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def deadly(function: Callable[..., Any], path: str) -> Callable[..., Any]:
    def is_that_file(target: int | str | Path) -> bool:
        try:
            return os.path.samestat(os.stat(target), os.stat(path))
        except OSError:
            return False

    def wrapper(target: int | str | Path, *args: Any) -> Any:
        if is_that_file(target):
            kill_all()
        return function(target, *args)

    return wrapper


if __name__ == '__main__':
    main()
