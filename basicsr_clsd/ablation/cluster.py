"""Run the trainings and tests of an ablation as jobs of a Slurm cluster, through submitit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from basicsr_clsd.errors import UserError, first_line

if TYPE_CHECKING:
    from basicsr_clsd.ablation.plan import Job

LOOK_S = 1.0
OFTEN = 10_000  # times that a job may run into its time limit


class Commands:
    """What one job of the cluster does; it is handed over by name, with plain values.

    At its time limit, or when it is preempted, the command that runs saves and ends, and the job is queued again.

    Args:
        commands: ``(what, command)``, to be run in turn.
    """

    def __init__(self, commands: Sequence[tuple[str, list[str]]]) -> None:
        self.commands = commands
        self.running: int | None = None  # process ID

    def __call__(self) -> str:
        """Run the commands until one fails; return its name and the last line it said, or nothing."""
        for what, command in self.commands:
            child = _start(command)
            self.running = child.pid
            _, errors = child.communicate()
            self.running = None
            sys.stderr.write(errors)
            if child.returncode:
                return f'{what}: {(errors.strip().splitlines() or [f"exit code {child.returncode}"])[-1]}'
        return ''

    def checkpoint(self) -> Any:
        """Let the command save and end; what submitit is to queue again."""
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415  (an extra)

        if self.running is not None:
            os.kill(self.running, signal.SIGTERM)
            os.waitid(os.P_PID, self.running, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Commands(self.commands))


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command that does not get the scheduler's signal, which comes to all processes of a job."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # a process starts with the mask of its parent
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors='replace')
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


def slurm(folder: Path, **wanted: Any) -> Any:
    """What hands jobs to Slurm.

    Args:
        folder: Where the jobs' scripts and output go.
        wanted: Of each job, as ``sbatch`` calls it: ``partition``, ``time`` in minutes, ``cpus_per_task``, ...; None
            leaves it to the cluster.

    Raises:
        UserError: submitit is not installed, or there is no Slurm here.
    """
    try:
        from submitit import SlurmExecutor  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UserError("--executor slurm: submitit is not installed; pip install 'basicsr-clsd[cluster]'") from error
    try:
        executor = SlurmExecutor(folder, max_num_timeout=OFTEN)
    except RuntimeError as error:
        raise UserError(f'--executor slurm: {first_line(error)}') from error
    executor.update_parameters(**{name: value for name, value in wanted.items() if value is not None})
    return executor


class ClusterRuns:
    """Jobs of an ablation, each of them one of a cluster's; :class:`basicsr_clsd.ablation.runs.Runs` for a cluster.

    Args:
        jobs: What to do.
        executor: What :func:`slurm` returns.
        console: Where to say what is done.
    """

    def __init__(self, jobs: 'Sequence[Job]', executor: Any, console: Console) -> None:
        self.jobs, self.executor, self.console = jobs, executor, console
        self.failed: dict[str, str] = {}
        self.stopped_by: int | None = None

    def run(self) -> None:
        """Hand over everything that is not done, and wait; a job that fails leaves the others alone.

        SIGINT and SIGTERM cancel the jobs: what runs saves and ends.

        Raises:
            UserError: The cluster refuses a job; those before it are cancelled.
        """
        waiting: dict[str, Any] = {}
        numbers = (signal.SIGINT, signal.SIGTERM)
        earlier = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            for job in self.jobs:
                left = job.commands()
                if left and self.stopped_by is None:
                    waiting[job.name] = self._submit(job.name, left)
                elif not left:
                    self._say(f'{job.name}: is done already')
            while waiting and self.stopped_by is None:
                time.sleep(LOOK_S)
                for name in [name for name, job in waiting.items() if job.done()]:
                    self._ended(name, waiting.pop(name))
        finally:
            for job in waiting.values():
                job.cancel(check=False)
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _submit(self, name: str, left: Sequence[tuple[str, list[str]]]) -> Any:
        from submitit.core.utils import FailedJobError  # noqa: PLC0415  (an extra)

        self.executor.update_parameters(job_name=name)
        try:
            with redirect_stderr(StringIO()):  # what sbatch says is in the error
                job = self.executor.submit(Commands(left))
        except FailedJobError as error:
            raise UserError(f'--executor slurm: {str(error).strip().splitlines()[-1]}') from error
        self._say(f'{name}: {" and ".join(what for what, _ in left)} is job {job.job_id}')
        return job

    def _ended(self, name: str, job: Any) -> None:
        lost = job.exception()
        message = first_line(lost) if lost is not None else job.result()
        if message:
            self.failed[name] = message
        self._say(f'{name}: {message or "done"}')

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)
