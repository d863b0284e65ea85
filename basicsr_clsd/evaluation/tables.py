"""Tables as text, and those of one test."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from basicsr_clsd.evaluation.results import FILE, NetworkFacts, ResultsFile, protocol_text
from basicsr_clsd.runtime.files import write_text

NOTHING = '–'
DIGITS = {'ssim': 4, 'lpips': 4, 'dists': 4}
UNITS = ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'))


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table; ``rank`` 1 is the best of its column, 2 the second best."""

    text: str
    rank: int = 0


@dataclass(frozen=True)
class Grid:
    """A table as it is shown: a head, and rows whose first entry is a name."""

    head: list[str]
    rows: list[list[Entry]]

    def print(self, console: Console, notes: Sequence[str] = ()) -> None:
        """Print it with notes under it, best in bold, second best underlined."""
        # As `Text`, or brackets in a name would be taken for styles.
        shown = Table(caption=Text('\n'.join(notes)) if notes else None, caption_justify='left')
        for number, title in enumerate(self.head):
            shown.add_column(Text(title), justify='left' if number == 0 else 'right')
        for row in self.rows:
            shown.add_row(*(Text(entry.text, style=('', 'bold', 'underline')[entry.rank]) for entry in row))
        console.print(shown)

    def markdown(self) -> str:
        """In Markdown, best bold, second best italic."""
        marks = ('', '**', '*')
        texts = [[f'{marks[entry.rank]}{entry.text}{marks[entry.rank]}' for entry in row] for row in self.rows]
        rows = [self.head, ['---', *('---:' for _ in self.head[1:])], *texts]
        return ''.join(f'| {" | ".join(text.replace("|", chr(92) + "|") for text in row)} |\n' for row in rows)


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, floats with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


class BenchmarkResult:
    """The results of a test as tables."""

    def __init__(self, results: ResultsFile) -> None:
        self.results = results

    def grid(self) -> Grid:
        """A row per method with each set's mean metrics."""
        results = self.results
        rows = list(next(iter(results.sets.values())))
        title = ' / '.join(next(iter(results.sets.values()))[rows[0]].mean)
        head = [f'x{results.scale}', *(f'{name} {title}' for name in results.sets)]
        cells = [[_means(by_row[row].mean) for by_row in results.sets.values()] for row in rows]
        return Grid(head, [[Entry(row), *values] for row, values in zip(rows, cells, strict=True)])

    def notes(self) -> list[str]:
        """What is to be read with the table: the protocol, images that are not in a mean, conditions of a row."""
        protocol = protocol_text(self.results.metrics, self.results.protocol_name)
        return [protocol, *(f'{note.row}: {note.text}' for note in self.results.notes)]

    def tables(self) -> list[tuple[Grid, list[str]]]:
        """All tables, with what is to be read with each."""
        networks = self.results.networks
        devices = dict.fromkeys(facts.latency_device for facts in networks.values() if facts.latency_s is not None)
        notes = [f'latency and memory on {device}' for device in devices]
        return [(self.grid(), self.notes()), (cost_grid(networks), notes)]

    def print(self, console: Console) -> None:
        """Print the tables and the notes."""
        for grid, notes in self.tables():
            grid.print(console, notes)

    def write(self, folder: Path) -> None:
        """Write ``results.md``, ``results.csv`` and ``results.json`` into a folder."""
        write_text(self.markdown(), folder / 'results.md')
        write_text(self.csv(), folder / 'results.csv')
        write_text(self.results.model_dump_json(indent=2) + '\n', folder / FILE)

    def markdown(self) -> str:
        """The tables in Markdown."""
        parts = []
        for grid, notes in self.tables():
            parts += [grid.markdown(), *([''.join(f'{note}.  \n' for note in notes)] if notes else [])]
        weights = ', '.join(f'{name}: `{facts.checkpoint}`' for name, facts in self.results.networks.items())
        return '\n'.join([*parts, f'Weights: {weights}.\n'])

    def csv(self) -> str:
        """One line per set, method, image and metric; the image ``mean`` is the set's mean."""
        rows = [
            [dataset, row, image, metric, value]
            for dataset, by_row in self.results.sets.items()
            for row, measured in by_row.items()
            for image, values in [*measured.images.items(), ('mean', measured.mean)]
            for metric, value in values.items()
        ]
        return csv_text(['set', 'method', 'image', 'metric', 'value'], rows)


def cost_grid(networks: Mapping[str, NetworkFacts]) -> Grid:
    """What networks cost: a row each."""
    rows = []
    for name, facts in networks.items():
        seconds = NOTHING if facts.latency_s is None else f'{facts.latency_s:.3g} s'
        memory = NOTHING if facts.peak_bytes is None else f'{facts.peak_bytes / 2**20:.0f} MiB'
        size = facts.latency_size or NOTHING
        texts = [name, _count(facts.parameters), _count(facts.macs_1280x720), seconds, memory, size]
        rows.append([Entry(text) for text in texts])
    return Grid(['network', 'parameters', 'MACs for 1280x720', 'latency', 'peak memory', 'measured for'], rows)


def _means(values: dict[str, float]) -> Entry:
    return Entry(' / '.join(f'{value:.{DIGITS.get(metric, 2)}f}' for metric, value in values.items()))


def _count(number: float | None) -> str:
    if number is None:
        return NOTHING
    unit, letter = next(((unit, letter) for unit, letter in UNITS if number >= unit), (1, ''))
    return f'{number / unit:.4g}{letter}'
