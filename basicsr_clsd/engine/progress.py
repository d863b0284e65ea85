"""What a training shows: a bar on a terminal, and a log line every so many iterations."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column


class TrainingProgress:
    """Shows loss terms, the last validation's result and the time left; use as a context.

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
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn('eta {task.fields[eta]}', table_column=Column(no_wrap=True)),
            TextColumn('{task.fields[terms]}', table_column=Column(no_wrap=True, overflow='ellipsis')),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task('', total=total, completed=first, terms='', eta='-')

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
        terms = [f'{name} {value:.2f}' for name, value in log.items() if name.startswith('L_') and name != 'L_total']
        self._bar.update(
            self._task, completed=iteration, terms=' '.join([self.validation, *terms]), eta=self.eta(iteration)
        )

    def eta(self, iteration: int) -> str:
        """Time left as h:mm:ss, at this session's mean speed, validations counted in."""
        left = (time.monotonic() - self.started) / (iteration - self.first) * (self.total - iteration)
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
