"""What a training shows: a bar on a terminal, and a log line every so many iterations."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text


class _Remaining(ProgressColumn):
    """Time left at the mean speed of this session."""

    def render(self, task: Task) -> Text:
        return Text(f'eta {task.fields["eta"]}')


class TrainingProgress:
    """Shows loss terms, the last validation's PSNR and the time left; use as a context.

    Args:
        console: The bar appears only if it is a terminal.
        first: Iterations done before this session.
        total: Iterations in all.
    """

    def __init__(self, console: Console, first: int, total: int) -> None:
        self.first, self.total = first, total
        self.started = time.monotonic()
        self.validation = ''
        self._sums: dict[str, float] = {}
        self._count = 0
        self._bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Remaining(),
            TextColumn('{task.fields[terms]}'),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task('training', total=total, completed=first, terms='', eta='-')

    def __enter__(self) -> 'TrainingProgress':
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def step(self, iteration: int, log: Mapping[str, float]) -> None:
        """Count one iteration and its log values."""
        for name, value in log.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        terms = ' '.join(f'{name} {value:.3f}' for name, value in log.items() if name.startswith('L_'))
        self._bar.update(
            self._task, completed=iteration, terms=f'{terms} {self.validation}', eta=self.eta(iteration)
        )

    def eta(self, iteration: int) -> str:
        """Time left, as h:mm:ss; validations counted in."""
        done = iteration - self.first
        if not done:
            return '-'
        left = (time.monotonic() - self.started) / done * (self.total - iteration)
        return str(timedelta(seconds=round(left)))

    def log_line(self, iteration: int, epoch: int, rate: float) -> dict[str, float]:
        """Log the means since the last line, and return them."""
        means = {name: value / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        speed = (time.monotonic() - self.started) / (iteration - self.first)
        values = ' '.join(f'{name}: {value:.4f}' for name, value in means.items())
        logging.getLogger('basicsr').info(
            f'[epoch {epoch}, iter {iteration:,}/{self.total:,}, lr {rate:.3g}, eta {self.eta(iteration)}, '
            f'{speed:.3f} s/iter] {values}'
        )
        return means
