"""Run the trainings and tests of an ablation, N at a time, and stop all of them together."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType

from rich.console import Console

from basicsr_clsd.ablation.plan import Job

ANY = 'any'
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Runs:
    """Jobs on devices.

    Args:
        jobs: What to do.
        devices: One job at a time on each: numbers of GPUs, ``cpu``, or ``any``, which leaves it to the options.
        console: Where to say what is done.
    """

    def __init__(self, jobs: Sequence[Job], devices: Sequence[str], console: Console) -> None:
        self.jobs, self.devices, self.console = jobs, devices, console
        self.failed: dict[str, str] = {}
        self.stopped_by: int | None = None
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._children: set[subprocess.Popen[str]] = set()
        self._changing = threading.RLock()

    def run(self) -> None:
        """Do everything that is not done; a job that fails leaves the others alone and is in :attr:`failed`.

        SIGINT and SIGTERM are passed on to what is running, which saves and ends; :attr:`stopped_by` is then set.
        """
        for job in self.jobs:
            self._waiting.put(job)
        threads = [threading.Thread(target=self._work, args=[device]) for device in self.devices]
        earlier = {number: signal.signal(number, self._stop) for number in SIGNALS}
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # signals are handled between two short waits
                    thread.join(0.2)
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        with self._changing:
            self.stopped_by = number
            for child in self._children:
                child.send_signal(number)

    def _work(self, device: str) -> None:
        while self.stopped_by is None:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                return
            left = job.commands()
            if not left:
                self._say(f'{job.name}: is done already')
            for what, command in left:
                started = time.monotonic()
                self._say(f'{job.name}: {what}' + ('' if device == ANY else f' on {device}'))
                code, message = self._command(command, device)
                if code and self.stopped_by is None:
                    self.failed[job.name] = f'{what}: {message or f"exit code {code}"}'
                    self._say(f'{job.name}: {self.failed[job.name]}')
                if code or self.stopped_by is not None:
                    break
                self._say(f'{job.name}: {what} done after {timedelta(seconds=round(time.monotonic() - started))}')

    def _command(self, command: Sequence[str], device: str) -> tuple[int, str]:
        """Run one command; returns its exit code and the last line of its standard error.

        What it prints is shown if it runs alone. It is started in a session of its own, so that a terminal's Ctrl-C
        reaches it once, through :meth:`_stop`; a second one would end it before it has saved.
        """
        gpu = {} if device == ANY else {'CUDA_VISIBLE_DEVICES': '' if device == 'cpu' else device}
        with self._changing:
            if self.stopped_by is not None:
                return 0, ''
            child = subprocess.Popen(
                command,
                env={**os.environ, **gpu},
                stdout=None if len(self.devices) == 1 else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors='replace',
                start_new_session=True,
            )
            self._children.add(child)
        _, errors = child.communicate()
        with self._changing:
            self._children.discard(child)
        lines = errors.strip().splitlines()
        return child.returncode, lines[-1] if lines else ''

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)
