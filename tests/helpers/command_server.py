"""Starts this project's commands in a moment: imports once what they import, then forks for each of them.

Reads one JSON object a line from standard input and answers with the exit codes of the command's processes (negative:
the signal that ended one). A forked process runs the command's file as ``__main__`` in a session of its own, and may be
told to have an accident on the way: see :func:`arrange`.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import platform
import resource
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[2])  # as the commands do when they are run as files

LIMIT_S = 300
M_ARENA_MAX = -8  # glibc's <malloc.h>


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # a forked process need not look through all of this for garbage
    for line in sys.stdin:
        children = []
        for process in json.loads(line):
            child = os.fork()
            if not child:
                os._exit(become(process))  # taking everything down that was imported would last longer than it
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(f'{json.dumps(codes)}\n')
        sys.stdout.flush()
    os._exit(0)


def become(job: Mapping[str, Any]) -> int:
    """Be the command until it has ended; return its exit code."""
    os.setsid()
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
    *,
    at_event: int | None = None,
    count_to: str | None = None,
    before: str | None = None,
    half_written: str | None = None,
    path: str | None = None,
    file_limit: int | None = None,
    signal_number: int | None = None,
    nan_at: int | None = None,
    error_at: int = 0,
    stuck_at: int = 0,
    limit_s: int = LIMIT_S,
    memory: int | None = None,
) -> None:
    """Prepare an accident.

    Args:
        at_event: Be killed at this call or return of a Python or C function, counted from the start.
        count_to: File to write the number of all those events to, at the end.
        before: ``os.replace`` or ``os.fsync``: be killed when it is about to be applied to the file ``path``.
        half_written: Be killed when this file has some content, before the next function call.
        path: See ``before`` and ``signal_number``.
        file_limit: No file may become larger than this many bytes, as on a full disk.
        signal_number: Get this signal when the file ``path`` is there.
        nan_at: ``FaultyLoss``, an L1 loss, is NaN when it is called for the time of this number; 0: never.
        error_at: An error is raised in the backward of that call of ``FaultyLoss``, and leaving the process group
            takes for ever, as it can with nccl when the processes are not at one.
        stuck_at: The backward of that call never ends.
        limit_s: Get SIGALRM after this many seconds.
        memory: No more than this many bytes can be had beside what is in use.
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
    if signal_number is not None:
        threading.Thread(target=get_signal, args=(signal_number, Path(str(path))), daemon=True).start()
    if nan_at is not None:
        register_faulty_loss(nan_at, error_at, stuck_at)
    signal.alarm(limit_s)
    if memory is not None:
        # Where two threads meet, glibc gives one an arena of its own: 64 MiB that may then be lacking.
        if platform.libc_ver()[0] == 'glibc':
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
        pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def get_signal(number: int, path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), number)


def sleep(*arguments: Any) -> None:
    while True:
        time.sleep(1)


def register_faulty_loss(nan_at: int, error_at: int, stuck_at: int) -> None:
    from basicsr.losses.basic_loss import L1Loss  # noqa: PLC0415  (basicsr_clsd must have been imported)
    from basicsr.utils.registry import LOSS_REGISTRY  # noqa: PLC0415
    from torch import distributed  # noqa: PLC0415

    if error_at or stuck_at:
        distributed.destroy_process_group = sleep

    def fail(gradient):
        raise ValueError('this backward failed')

    class FaultyLoss(L1Loss):
        calls = 0

        def forward(self, *args, **kwargs):
            self.calls += 1
            loss = super().forward(*args, **kwargs)
            if self.calls == error_at:
                loss.register_hook(fail)
            if self.calls == stuck_at:
                loss.register_hook(sleep)
            return loss * float('nan') if self.calls == nan_at else loss

    LOSS_REGISTRY.register(FaultyLoss)


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
