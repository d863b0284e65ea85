"""Results as tables on the console, in Markdown, CSV and JSON."""

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from basicsr_clsd.config import Options
from basicsr_clsd.config.protocols import CUSTOM, name_of
from basicsr_clsd.evaluation.complexity import Complexity
from basicsr_clsd.evaluation.metrics import Scores
from basicsr_clsd.runtime.files import write_text

VERSION = 1
DIGITS = {'ssim': 4, 'lpips': 4, 'dists': 4}
SHOWN_IMAGES = 3
UNKNOWN = '-'
COST_HEAD = ['1280x720 output', 'parameters', 'MACs', 'latency', 'peak memory']
UNITS = ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'))


def protocol_name(options: Options) -> str:
    """The protocol by name, or ``custom``."""
    sections = {name: {'type': metric.type, **metric.arguments()} for name, metric in options.val.metrics.items()}
    return name_of(sections, options.scale)


def describe(options: Options) -> str:
    """The protocol in words, from the metrics' arguments: printed under every table."""
    conditions: dict[str, list[str]] = {}
    for name, metric in options.val.metrics.items():
        arguments = metric.arguments()
        channel = 'Y of YCbCr' if arguments.get('test_y_channel') else 'RGB'
        condition = f'on {channel}, {arguments.get("crop_border", 0)} pixels of border cut'
        conditions.setdefault(condition, []).append(name)
    return '; '.join(f'{" and ".join(names)} {condition}' for condition, names in conditions.items())


@dataclass
class Report:
    """Results of one test.

    Args:
        name: Name of the test.
        checkpoint: Where the first network's weights came from.
        scale: Super-resolution factor.
        protocol: How was measured, in words.
        scores: ``scores[set][method]``.
        protocol_name: The protocol by name.
        networks: What is known of each tested network, for the JSON.
        costs: Each tested network's complexity.
        remarks: What else is to be said under the tables.
        lower_is_better: Metrics that are better the lower they are.
    """

    name: str
    checkpoint: str
    scale: int
    protocol: str
    scores: dict[str, dict[str, Scores]]
    protocol_name: str = CUSTOM
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, Complexity] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    lower_is_better: list[str] = field(default_factory=list)

    def rows(self) -> list[list[str]]:
        """The table: a head, and a row per method with each set's mean metrics."""
        methods = list(next(iter(self.scores.values())))
        metrics = list(next(iter(self.scores.values()))[methods[0]].mean())
        title = ' / '.join(metrics)
        head = [f'x{self.scale}', *(f'{name} {title}' for name in self.scores)]
        body = [
            [method, *(_cell(by_method[method].mean()) for by_method in self.scores.values())] for method in methods
        ]
        return [head, *body]

    def cost_rows(self) -> list[list[str]]:
        """The table of complexity: a head, and a row per network."""
        body = []
        for method, cost in self.costs.items():
            seconds = UNKNOWN if cost.latency_s is None else f'{cost.latency_s:.3g} s'
            memory = UNKNOWN if cost.peak_bytes is None else f'{cost.peak_bytes / 2**20:.0f} MiB'
            body.append([method, _count(cost.parameters), _count(cost.macs_1280x720), seconds, memory])
        return [COST_HEAD, *body] if body else []

    def cost_notes(self) -> list[str]:
        """What is to be read with the table of complexity: what was measured on."""
        devices = dict.fromkeys(cost.latency_device for cost in self.costs.values() if cost.latency_s is not None)
        return [f'latency and memory on {device}' for device in devices]

    def notes(self) -> list[str]:
        """What is to be read with the tables: the protocol, images that are not in a mean, conditions of a row."""
        notes = [f'{self.protocol_name}: {self.protocol}']
        for dataset, by_method in self.scores.items():
            for method, scores in by_method.items():
                for metric in scores.metrics():
                    notes += _left_out(f'{dataset}, {method}: {metric}', scores, metric)
        return [*notes, *self.remarks]

    def print(self, console: Console) -> None:
        """Print the tables and the notes."""
        for rows, notes in ((self.rows(), self.notes()), (self.cost_rows(), self.cost_notes())):
            # As `Text`, or brackets in a name would be taken for styles.
            table = Table(caption=Text('\n'.join(notes)) if notes else None, caption_justify='left')
            for number, title in enumerate(rows[0] if rows else ()):
                table.add_column(Text(title), justify='left' if number == 0 else 'right')
            for row in rows[1:]:
                table.add_row(*map(Text, row))
            if rows:
                console.print(table)

    def write(self, folder: Path) -> None:
        """Write ``results.md``, ``results.csv`` and ``results.json`` into a folder."""
        write_text(self.markdown(), folder / 'results.md')
        write_text(self.csv(), folder / 'results.csv')
        write_text(self.json(), folder / 'results.json')

    def markdown(self) -> str:
        """The tables in Markdown."""
        weights = [f'{method}: `{facts["checkpoint"]}`' for method, facts in self.networks.items()]
        lines = []
        for rows, notes in ((self.rows(), self.notes()), (self.cost_rows(), self.cost_notes())):
            lines += [*_table(rows), *(f'{note}.  ' for note in notes), *([''] if notes else [])]
        return '\n'.join([*lines, f'Weights: {", ".join(weights) or f"`{self.checkpoint}`"}.', ''])

    def csv(self) -> str:
        """One line per set, method, image and metric; the image ``mean`` is the set's mean."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(['set', 'method', 'image', 'metric', 'value'])
        for dataset, by_method in self.scores.items():
            for method, scores in by_method.items():
                for image, values in [*scores.images.items(), ('mean', scores.mean())]:
                    writer.writerows([dataset, method, image, metric, repr(value)] for metric, value in values.items())
        return text.getvalue()

    def json(self) -> str:
        """Everything, with all digits; an infinite PSNR is the text ``inf``, as JSON has no number for it."""
        sets = {
            dataset: {
                method: {
                    'mean': _plain(scores.mean()),
                    'images': {image: _plain(values) for image, values in scores.images.items()},
                }
                for method, scores in by_method.items()
            }
            for dataset, by_method in self.scores.items()
        }
        content = {
            'version': VERSION,
            'name': self.name,
            'checkpoint': self.checkpoint,
            'scale': self.scale,
            'protocol_name': self.protocol_name,
            'protocol': self.protocol,
            'lower_is_better': self.lower_is_better,
            'notes': self.notes()[1:],
            'networks': self.networks,
            'sets': sets,
        }
        return json.dumps(content, indent=2, ensure_ascii=False, default=str) + '\n'


def _left_out(what: str, scores: Scores, metric: str) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for image, reason in scores.left_out(metric).items():
        reasons.setdefault(reason, []).append(image)
    notes = []
    for reason, images in reasons.items():
        shown = ', '.join(images[:SHOWN_IMAGES]) + ', ...' * (len(images) > SHOWN_IMAGES)
        rest = 'is not in the mean' if len(images) < len(scores.images) else 'there is no other'
        notes.append(f'{what} {reason}: {len(images)} of {len(scores.images)} ({shown}); {rest}')
    return notes


def _table(rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    rule = ['---', *('---:' for _ in rows[0][1:])]
    return [*(f'| {" | ".join(row)} |' for row in (rows[0], rule, *rows[1:])), '']


def _cell(values: dict[str, float]) -> str:
    return ' / '.join(f'{value:.{DIGITS.get(metric, 2)}f}' for metric, value in values.items())


def _count(number: int | None) -> str:
    if number is None:
        return UNKNOWN
    unit, letter = next(((unit, letter) for unit, letter in UNITS if number >= unit), (1, ''))
    return f'{number / unit:.4g}{letter}'


def _plain(values: dict[str, float]) -> dict[str, float | str]:
    return {metric: value if math.isfinite(value) else str(value) for metric, value in values.items()}
