"""The paper's numbers, for comparison side by side."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from basicsr_clsd.config.load import read_yaml

FILE = Path(__file__).with_name('paper.yml')


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Args:
        title: What it is called there.
        sets: Its columns.
        methods: What the rows are called there, by this project's names.
        psnr: PSNR on Y in dB, ``psnr[scale][method]``, one value per set.
    """

    title: str
    sets: list[str]
    methods: dict[str, str]
    psnr: dict[int, dict[str, list[float]]]

    def value(self, scale: int, method: str, dataset: str) -> float | None:
        """PSNR of a cell; None if the paper has none."""
        row = self.psnr.get(scale, {}).get(method)
        return row[self.sets.index(dataset)] if row and dataset in self.sets else None


@dataclass(frozen=True)
class Paper:
    """All tables of PSNR, and what every training of theirs had in common, by dotted keys of the options.

    Args:
        settings: That.
        order: In which methods come in tables; those of other papers too.
        tables: The tables.
    """

    settings: dict[str, Any]
    order: list[str]
    tables: list[PaperTable]


@cache
def load_paper() -> Paper:
    """Read ``paper.yml``."""
    content = read_yaml(FILE)
    return Paper(content['settings'], content['order'], [PaperTable(**table) for table in content['tables']])


def paper_name(label: str) -> str:
    """This project's name of the method that a label means: those of ``options/small`` are the same methods."""
    return label.removeprefix('small_')
