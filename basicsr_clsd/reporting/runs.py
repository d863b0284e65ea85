"""Read what a training wrote into its experiment folder: options, validations, loss terms, environment."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr_clsd.config.load import read_yaml
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.results import label_of

LINE = re.compile(r'\[epoch [^\]]*?\biter ([\d,]+)/[\d,]+.*?\] (.*)$')
TERM = re.compile(r'(\S+): (-?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))')
ENVIRONMENT = re.compile(r'INFO: (basicsr-clsd .*)$')

Curve = list[tuple[int, float]]  # (iteration, value)


@dataclass
class TrainingRun:
    """A training run.

    Args:
        name: Of the run.
        folder: Its experiment folder.
        options: Resolved options.
        validations: ``validations[set][metric]``.
        terms: What the log has of each loss term and other value that is logged with them.
        environment: Versions, threads, device and command line, of each session of the training.
    """

    name: str
    folder: Path
    options: dict[str, Any]
    validations: dict[str, dict[str, Curve]]
    terms: dict[str, Curve]
    environment: list[str]

    @property
    def label(self) -> str:
        """The method's name, as tables call it."""
        return label_of(self.name, self.options.get('scale', 0))

    @property
    def seed(self) -> int | None:
        """Seed of the training."""
        return self.options.get('manual_seed')


def read_training(folder: Path) -> TrainingRun:
    """Read ``experiments/NAME``.

    Raises:
        UserError: It is not the folder of a training, or a file in it is damaged.
    """
    name = folder.absolute().name
    if not is_training(folder):
        raise UserError(f'{folder}: not the folder of a training: it has no {name}.yml and metrics.jsonl')
    logged = _lines(folder / f'train_{name}.log')
    terms: dict[str, Curve] = {}
    for iteration, values in _logged_values(logged):
        for term, value in values.items():
            terms.setdefault(term, []).append((iteration, value))
    return TrainingRun(
        name=name,
        folder=folder,
        options=read_yaml(folder / f'{name}.yml'),
        validations=_validations(folder / 'metrics.jsonl'),
        terms=terms,
        environment=[found[1] for found in map(ENVIRONMENT.search, logged) if found],
    )


def is_training(folder: Path) -> bool:
    """Whether a folder is that of a training which has validated or ended."""
    return (folder / f'{folder.absolute().name}.yml').is_file() and (folder / 'metrics.jsonl').is_file()


def _validations(file: Path) -> dict[str, dict[str, Curve]]:
    found: dict[str, dict[str, Curve]] = {}
    lines = _lines(file)
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            point = int(values['iter']), float(values['value'])
            found.setdefault(str(values['dataset']), {}).setdefault(str(values['metric']), []).append(point)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # the training is being written, or was killed while it wrote
                break
            raise UserError(f'{file}, line {number}: not a line of metrics') from error
    return found


def _logged_values(lines: list[str]) -> Iterator[tuple[int, dict[str, float]]]:
    for line in lines:
        found = LINE.search(line)
        if found:
            yield int(found[1].replace(',', '')), {name: float(value) for name, value in TERM.findall(found[2])}


def _lines(file: Path) -> list[str]:
    """Lines of a text file; none if there is no such file, as a log that was moved away is no mistake."""
    try:
        return file.read_text(encoding='utf-8', errors='replace').splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f'{file}: cannot be read: {error.strerror}') from error
