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
        console: The bar appears only if it is a terminal; None: nothing is shown.
        first: Iterations done before this session.
        total: Iterations in all.
    """

    def __init__(self, console: Console | None, first: int, total: int) -> None:
        self.first, self.total = first, total
        self.started = time.monotonic()
        self.validation = ''
        self._terms = self._speed = ''
        self._logged = self.started, first
        self._bar = Progress(
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn('eta {task.fields[eta]}', table_column=Column(no_wrap=True)),
            TextColumn('{task.fields[terms]}', table_column=Column(no_wrap=True, overflow='ellipsis')),
            console=console,
            disable=console is None or not console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task('', total=total, completed=first, terms='', eta='-')

    def __enter__(self) -> 'TrainingProgress':
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def step(self, iteration: int) -> None:
        """Count one iteration."""
        shown = f'{self._speed} {self.validation} {self._terms}'.strip()
        self._bar.update(self._task, completed=iteration, terms=shown, eta=self.eta(iteration))

    def eta(self, iteration: int) -> str:
        """Time left as h:mm:ss, at this session's mean speed, validations counted in."""
        left = (time.monotonic() - self.started) / (iteration - self.first) * (self.total - iteration)
        return str(timedelta(seconds=round(left)))

    def log_line(
        self, iteration: int, epoch: int, rate: float, means: Mapping[str, float], waited: float
    ) -> dict[str, float]:
        """Log the means since the last line, and what the time since then was spent on.

        Args:
            iteration: Iterations done.
            epoch: Epochs done.
            rate: Learning rate.
            means: Values by name.
            waited: Seconds that the loop waited for data.

        Returns:
            ``it/s`` and ``data_wait``, the share of the time spent on waiting for data, since the last line.
        """
        now = time.monotonic()
        seconds, count = now - self._logged[0], iteration - self._logged[1]
        self._logged = now, iteration
        speed = {'it/s': count / seconds, 'data_wait': waited / seconds}
        terms = [f'{name} {value:.2f}' for name, value in means.items() if name.startswith('L_') and name != 'L_total']
        self._terms, self._speed = ' '.join(terms), f'{speed["it/s"]:.3g} it/s'
        values = ' '.join(f'{name}: {value:.4f}' for name, value in means.items())
        logging.getLogger('basicsr').info(
            f'[epoch {epoch}, iter {iteration:,}/{self.total:,}, lr {rate:.3g}, eta {self.eta(iteration)}, '
            f'{seconds / count:.3f} s/iter, {speed["data_wait"]:.1%} waiting for data] {values}'
        )
        return speed
