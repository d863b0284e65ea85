"""Read what a training wrote into its experiment folder: options, and the rows of ``metrics.jsonl``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from basicsr_clsd.config.load import read_yaml
from basicsr_clsd.engine.records import FILE, StartRow, TrainRow, read_rows
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.results import method_label

Curve = list[tuple[int, float]]  # (iteration, value)


@dataclass
class TrainingRun:
    """A training run.

    Args:
        name: Of the run.
        folder: Its experiment folder.
        options: Resolved options.
        validations: ``validations[set][metric]``.
        terms: Loss terms, and other values that were logged with them.
        starts: What each start of the training ran on.
    """

    name: str
    folder: Path
    options: dict[str, Any]
    validations: dict[str, dict[str, Curve]] = field(default_factory=dict)
    terms: dict[str, Curve] = field(default_factory=dict)
    starts: list[StartRow] = field(default_factory=list)

    @property
    def seed(self) -> int | None:
        """Its ``manual_seed``; None where it is not recorded."""
        return self.options.get('manual_seed')

    @property
    def scale(self) -> int:
        """Its super-resolution factor."""
        return self.options['scale']

    @property
    def method(self) -> str:
        """Its name without ``train_``, scale and seed."""
        return method_label(self.name, self.scale, self.seed)

    def curve(self, dataset: str, metric: str) -> Curve:
        """A metric of the validations on a set; empty where there was none."""
        return self.validations.get(dataset, {}).get(metric, [])


def read_training(folder: Path) -> TrainingRun:
    """Read ``experiments/NAME``.

    Raises:
        UserError: It is not the folder of a training, or a file in it is damaged.
    """
    name = folder.absolute().name
    if not is_training(folder):
        raise UserError(f'{folder}: not the folder of a training: it has no {name}.yml and {FILE}')
    run = TrainingRun(name, folder, read_yaml(folder / f'{name}.yml'))
    for row in read_rows(folder / FILE):
        if isinstance(row, StartRow):
            run.starts.append(row)
        elif isinstance(row, TrainRow):
            for term, value in row.values.items():
                run.terms.setdefault(term, []).append((row.iter, value))
        else:
            run.validations.setdefault(row.dataset, {}).setdefault(row.metric, []).append((row.iter, row.value))
    return run


def is_training(folder: Path) -> bool:
    """Whether a folder is that of a training."""
    return (folder / f'{folder.absolute().name}.yml').is_file() and (folder / FILE).is_file()
