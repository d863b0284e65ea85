"""What the model logs, read from the device once per log line and not once per iteration."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

DONE = 'done'  # 1 for a step that was done, 0 for one that was skipped


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
    """Keeps the log values of some iterations on their device."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._in_a_row = 0

    def add(self, iteration: int, log: dict[str, Tensor], files: list[str]) -> None:
        """Take the scalars of one iteration, :data:`DONE` among them, and the files that its batch came from."""
        values = torch.stack([value.detach().float() for value in log.values()])
        self._rows.append(_Row(iteration, list(log), values, files))

    def read(self) -> Reading:
        """Return and forget everything; waits for the device."""
        numbers = iter(torch.cat([row.values for row in self._rows]).tolist())
        finite: dict[str, list[float]] = {}
        skipped = []
        for row in self._rows:
            values = {name: next(numbers) for name in row.names}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if values.pop(DONE):
                self._in_a_row = 0
            else:
                self._in_a_row += 1
                cause = ', '.join(bad) or 'a gradient, here or in another process'
                skipped.append(f'Iteration {row.iteration} skipped: not finite: {cause}; files: {", ".join(row.files)}')
            for name, value in values.items():
                finite.setdefault(name, []).extend([value] if name not in bad else [])
        self._rows = []
        means = {name: sum(values) / len(values) if values else math.nan for name, values in finite.items()}
        return Reading(means, skipped, self._in_a_row)
