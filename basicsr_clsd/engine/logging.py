"""What a training says: the log, the bar on a terminal, and the values that both show."""

import logging
import math
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column
from torch import Tensor

from basicsr_clsd.engine.records import TrainRow
from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.memory import peak_memory

DONE = 'done'  # 1 for a step that was done, 0 for one that was skipped


class LogFileHandler(logging.FileHandler):
    """Log lines into a file. A line that a full disk refuses is lost; the next checkpoint tells, and ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Print no traceback."""


def add_log_file(path: Path) -> None:
    """Append everything that is logged to a file as well."""
    try:
        handler = LogFileHandler(path, 'a', encoding='utf-8')
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s: %(message)s'))
    get_root_logger().addHandler(handler)


@dataclass
class Reading:
    """What a meter has seen since it was last read.

    Args:
        means: Of each value, over the iterations in which it was logged and finite.
        skipped: What to say of each skipped step: the terms that went bad and the files of the batch.
        in_a_row: Steps skipped up to now since the last one that was done.
    """

    means: dict[str, float]
    skipped: list[str]
    in_a_row: int


@dataclass
class _Row:
    iteration: int
    names: list[str]
    values: Tensor
    files: list[str]


class Meter:
    """What the model logs, read from the device once per log line and not once per iteration."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._finite: dict[str, list[float]] = {}
        self._skipped: list[str] = []
        self._in_a_row = 0

    def add(self, iteration: int, log: dict[str, Tensor], files: list[str]) -> None:
        """Take the scalars of one iteration, :data:`DONE` among them, and the files that its batch came from."""
        values = torch.stack([value.detach().float() for value in log.values()])
        self._rows.append(_Row(iteration, list(log), values, files))

    def read(self) -> Reading:
        """Return and forget everything; waits for the device."""
        self._drain()
        means = {name: sum(values) / len(values) if values else math.nan for name, values in self._finite.items()}
        skipped, self._finite, self._skipped = self._skipped, {}, []
        return Reading(means, skipped, self._in_a_row)

    def state(self) -> dict[str, Any]:
        """What was added since the last reading, as plain values."""
        self._drain()
        return {'finite': self._finite, 'skipped': self._skipped, 'in_a_row': self._in_a_row}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned, so that the next reading has the means of a run without an end."""
        self._finite, self._skipped, self._in_a_row = state['finite'], state['skipped'], state['in_a_row']

    def _drain(self) -> None:
        numbers = iter(torch.cat([row.values for row in self._rows]).tolist() if self._rows else ())
        for row in self._rows:
            values = {name: next(numbers) for name in row.names}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if values.pop(DONE):
                self._in_a_row = 0
            else:
                self._in_a_row += 1
                cause = ', '.join(bad) or 'a gradient, here or in another process'
                self._skipped.append(
                    f'Iteration {row.iteration} skipped: not finite: {cause}; files: {", ".join(row.files)}'
                )
            for name, value in values.items():
                self._finite.setdefault(name, []).extend([value] if name not in bad else [])
        self._rows = []


class TrainingProgress:
    """Shows loss terms, the last validation's result and the time left; use as a context.

    Args:
        console: The bar appears only if it is a terminal; None: nothing is shown.
        first: Iterations done before this session.
        total: Iterations in all.
        device: Where it trains, for its memory.
    """

    def __init__(self, console: Console | None, first: int, total: int, device: torch.device) -> None:
        self.first, self.total, self.device = first, total, device
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

    def log(self, iteration: int, epoch: int, lr: float, values: dict[str, float], waited: float) -> TrainRow:
        """Log the means since the last row, and what the time since then was spent on; show them on the bar.

        Args:
            iteration: Iterations done.
            epoch: Epochs done.
            lr: Learning rate.
            values: Means by name.
            waited: Seconds that the loop waited for data.

        Returns:
            The row for the record.
        """
        now = time.monotonic()
        seconds, count = now - self._logged[0], iteration - self._logged[1]
        self._logged = now, iteration
        row = TrainRow(
            iter=iteration,
            epoch=epoch,
            lr=lr,
            values=values,
            it_per_s=count / seconds,
            data_wait=waited / seconds,
            memory_gib=peak_memory(self.device) / 2**30,
        )
        terms = [f'{k} {v:.2f}' for k, v in values.items() if k.startswith('L_') and k != 'L_total']
        self._terms, self._speed = ' '.join(terms), f'{row.it_per_s:.3g} it/s'
        shown = ' '.join(f'{name}: {value:.4f}' for name, value in values.items())
        logging.getLogger('basicsr').info(
            f'[epoch {epoch}, iter {iteration:,}/{self.total:,}, lr {lr:.3g}, eta {self.eta(iteration)}, '
            f'{seconds / count:.3f} s/iter, {row.data_wait:.1%} waiting for data] {shown}'
        )
        return row
