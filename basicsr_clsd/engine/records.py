"""The record of a training, ``metrics.jsonl``: one JSON object a line, written and read by the same classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.files import write_text

FILE = 'metrics.jsonl'


class _Row(BaseModel):
    """A line; keys of later versions are ignored. ``NaN`` and ``Infinity`` are texts, as JSON has no such numbers."""

    model_config = ConfigDict(extra='ignore', ser_json_inf_nan='strings')

    iter: int


class StartRow(_Row):
    """What a start of the training ran on, and how it computes; rows of earlier versions do not say the latter.

    ``iter`` is the iteration that it went on from, ``precision_reason`` why ``train.precision: auto`` took this one.
    """

    kind: Literal['start'] = 'start'
    time: str
    versions: dict[str, str]
    device: str
    precision: str | None = None
    precision_reason: str | None = None
    channels_last: bool | None = None
    tf32: bool | None = None
    deterministic: bool | None = None
    cudnn_benchmark: bool | None = None
    threads: int
    processes: int
    host: str
    command: list[str]

    def text(self) -> str:
        """Two lines for people."""
        parts = [*(f'{name} {version}' for name, version in self.versions.items())]
        parts += [f'threads {self.threads}', f'device {self.device}']
        reason = f' (auto: {self.precision_reason})' if self.precision_reason else ''
        flags = ('channels_last', 'tf32', 'deterministic', 'cudnn_benchmark')
        shown = ', '.join(f'{flag} {str(getattr(self, flag)).lower()}' for flag in flags)
        return f'{", ".join(parts)}; {" ".join(self.command)}\nprecision {self.precision}{reason}, {shown}'


class TrainRow(_Row):
    """Means since the row before it.

    Args:
        iter: Iterations done.
        epoch: Epochs done.
        lr: Learning rate of the first group of parameters.
        values: Loss terms as weighted in the sum (``L_...``), and other values that the model logs.
        it_per_s: Iterations per second.
        data_wait: Share of the time in which the loop waited for data.
        memory_gib: Most memory of the main process up to now: of its GPU, or of the machine where there is none.
    """

    kind: Literal['train'] = 'train'
    epoch: int
    lr: float
    values: dict[str, float]
    it_per_s: float
    data_wait: float
    memory_gib: float


class ValidationRow(_Row):
    """One metric of one set; rows of earlier versions have no ``kind``."""

    kind: Literal['validation'] = 'validation'
    dataset: str
    metric: str
    value: float


Row = StartRow | TrainRow | ValidationRow
_PARSER: TypeAdapter[Row] = TypeAdapter(Row)


def validation_rows(iteration: int, results: Mapping[str, Mapping[str, float]]) -> list[ValidationRow]:
    """The rows of a validation: ``results[set][metric]``."""
    return [
        ValidationRow(iter=iteration, dataset=name, metric=metric, value=value)
        for name, values in results.items()
        for metric, value in values.items()
    ]


def append_rows(rows: Sequence[Row], file: Path) -> None:
    """Append rows to a file, which is made if it is not there."""
    with open(file, 'a', encoding='utf-8') as stream:
        stream.write(''.join(row.model_dump_json() + '\n' for row in rows))


def read_rows(file: Path) -> list[Row]:
    """Read a file; a last line that is cut off is left out: the training is being written, or was killed.

    Raises:
        UserError: The file cannot be read, or another line is not a row.
    """
    try:
        lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError as error:
        raise UserError(f'{file}: cannot be read: {error.strerror}') from error
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise UserError(f'{file}, line {number}: not a line of metrics')
    return rows


def drop_later_rows(file: Path, iteration: int) -> None:
    """Take the rows of iterations after this one, which will come again, out of a file."""
    if file.is_file():
        lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
        kept = [line for line in lines if (row := _parse(line)) is not None and row.iter <= iteration]
        write_text(''.join(line + '\n' for line in kept), file)


def _parse(line: str) -> Row | None:
    try:
        return _PARSER.validate_json(line)
    except ValidationError:
        return None
