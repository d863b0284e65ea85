"""What a comparison consists of: tables of methods x sets."""

from dataclasses import dataclass, field

from basicsr_clsd.reporting.groups import Group
from basicsr_clsd.reporting.statistics import Difference

DIGITS = {'psnr': 3}


@dataclass
class Cell:
    """One method on one set.

    Args:
        mean: Over images and seeds.
        deviation: Over seeds; None for a single one.
        rank: 1 best, 2 second best of the column at the digits shown, 0 neither.
        difference: To the baseline.
        paper: The paper's number.
        paper_difference: The paper's difference to its baseline.
    """

    mean: float
    deviation: float | None
    rank: int = 0
    difference: Difference | None = None
    paper: float | None = None
    paper_difference: float | None = None


@dataclass
class Row:
    """One method: its cells by set; ``name`` is what the table calls it."""

    name: str
    group: Group
    cells: dict[str, Cell]


@dataclass
class Table:
    """One metric at one scale.

    Args:
        title: What it is.
        scale: Super-resolution factor.
        metric: Name of the metric.
        sets: Columns.
        rows: Bicubic, the paper's methods in its order, then the others as they came.
        baseline: Label of the method that differences are to; None: there is none.
        with_paper: Beside each cell is the paper's number.
        notes: What to know of the numbers, printed under the table.
    """

    title: str
    scale: int
    metric: str
    sets: list[str]
    rows: list[Row]
    baseline: str | None
    with_paper: bool
    notes: list[str] = field(default_factory=list)

    @property
    def digits(self) -> int:
        """Decimals shown."""
        return DIGITS.get(self.metric, 4)
