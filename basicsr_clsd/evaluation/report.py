"""Results as a table on the console, in Markdown, CSV and JSON."""

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from basicsr_clsd.config import Options
from basicsr_clsd.evaluation.evaluate import Scores
from basicsr_clsd.files import write_text

DIGITS = {'ssim': 4}


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
        name: Name of the tested network in the table.
        checkpoint: Where its weights came from.
        scale: Super-resolution factor.
        protocol: How was measured, in words.
        scores: ``scores[set][method]``.
    """

    name: str
    checkpoint: str
    scale: int
    protocol: str
    scores: dict[str, dict[str, Scores]]

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

    def print(self, console: Console) -> None:
        """Print the table and the protocol."""
        head, *body = self.rows()
        # As `Text`, or brackets in a name would be taken for styles.
        table = Table(caption=Text(self.protocol), caption_justify='left')
        for number, title in enumerate(head):
            table.add_column(Text(title), justify='left' if number == 0 else 'right')
        for row in body:
            table.add_row(*map(Text, row))
        console.print(table)

    def write(self, folder: Path) -> None:
        """Write ``results.md``, ``results.csv`` and ``results.json`` into a folder."""
        write_text(self.markdown(), folder / 'results.md')
        write_text(self.csv(), folder / 'results.csv')
        write_text(self.json(), folder / 'results.json')

    def markdown(self) -> str:
        """The table in Markdown."""
        head, *body = self.rows()
        rule = ['---', *('---:' for _ in head[1:])]
        lines = [f'| {" | ".join(row)} |' for row in (head, rule, *body)]
        return '\n'.join([*lines, '', f'{self.protocol}. Weights: `{self.checkpoint}`.', ''])

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
            'name': self.name,
            'checkpoint': self.checkpoint,
            'scale': self.scale,
            'protocol': self.protocol,
            'sets': sets,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + '\n'


def _cell(values: dict[str, float]) -> str:
    return ' / '.join(f'{value:.{DIGITS.get(metric, 2)}f}' for metric, value in values.items())


def _plain(values: dict[str, float]) -> dict[str, float | str]:
    return {metric: value if math.isfinite(value) else str(value) for metric, value in values.items()}
