"""Many tests as tables: methods x sets at one scale, over seeds, beside a baseline and the paper."""

import math
from collections.abc import Sequence

import numpy as np

from basicsr_clsd.errors import UserError, suggest
from basicsr_clsd.evaluation.results import BICUBIC, ResultRow
from basicsr_clsd.reporting.groups import Group, group
from basicsr_clsd.reporting.model import Cell, Row, Table
from basicsr_clsd.reporting.notes import notes_of
from basicsr_clsd.reporting.paper import PaperTable, load_paper, paper_name
from basicsr_clsd.reporting.statistics import LEVEL, mean_and_deviation, paired_difference

BASELINE = 'EDSR'


def compare(
    tested: Sequence[ResultRow], baseline: str | None = None, paper: bool = False, metrics: Sequence[str] | None = None
) -> list[Table]:
    """Make the tables of any number of tests: for each scale one per metric, and with ``paper`` its Table 5.

    Args:
        tested: Rows of tests; those of one method and scale are its seeds.
        baseline: Label of the method that the others are compared with; default ``EDSR``, if it is there.
        paper: Put the paper's numbers beside.
        metrics: Which; default all that all tests have.

    Raises:
        UserError: Two tests are of one seed, or were not measured alike or on the same images, or there is no such
            baseline or metric.
    """
    groups = group(tested)
    labels = list(dict.fromkeys(each.label for each in groups))
    if baseline is not None and baseline not in labels:
        raise UserError(f'--baseline: no method {baseline!r} in these results{suggest(baseline, labels)}')
    tables = []
    for scale in sorted({each.scale for each in groups}):
        of_scale = [each for each in groups if each.scale == scale]
        chosen = _baseline(of_scale, baseline)
        for metric in _metrics(of_scale, metrics):
            tables += _tables(of_scale, metric, chosen, paper)
    return tables


def _baseline(groups: list[Group], label: str | None) -> Group | None:
    wanted = (lambda each: each.label == label) if label else (lambda each: paper_name(each.label) == BASELINE)
    return next((each for each in groups if wanted(each)), None)


def _metrics(groups: list[Group], wanted: Sequence[str] | None) -> list[str]:
    tests = [tested for group in groups for tested in group.tested if tested.sets]
    measured = [tested.metrics.keys() & values.mean.keys() for tested in tests for values in tested.sets.values()]
    common = [metric for metric in tests[0].metrics if all(metric in names for names in measured)]
    if not common:
        raise UserError(f'{tests[0].folder}: there is no metric that all of these results have')
    for metric in wanted or []:
        if metric not in common:
            raise UserError(f'--metrics: {metric!r} is not in all of these results{suggest(metric, common)}')
    return list(wanted or common)


def _tables(groups: list[Group], metric: str, baseline: Group | None, paper: bool) -> list[Table]:
    scale = groups[0].scale
    known = load_paper()
    main, *others = known.tables
    ranks = {name: number for number, name in enumerate(known.order)}
    ordered = sorted(
        groups, key=lambda each: -1 if each.label == BICUBIC else ranks.get(paper_name(each.label), len(ranks))
    )
    numbers = main if paper and metric == 'psnr' else None
    title = f'x{scale}, {_shown(metric)}'
    made = [_table(title, ordered, metric, baseline, numbers)]
    for table in others if numbers else []:
        by_name = {paper_name(each.label): each for each in groups}
        if scale in table.psnr and all(method in by_name for method in table.methods):
            rows = [by_name[method] for method in table.methods]
            made.append(_table(f"{title}: the paper's {table.title}", rows, metric, baseline, table, table.methods))
    return made


def _table(  # noqa: PLR0913, PLR0917
    title: str,
    groups: list[Group],
    metric: str,
    baseline: Group | None,
    numbers: PaperTable | None,
    names: dict[str, str] | None = None,
) -> Table:
    sets = list(dict.fromkeys(name for each in groups for tested in each.tested for name in tested.sets))
    rows = []
    for each in groups:
        cells = {name: _cell(each, name, metric, baseline, numbers) for name in sets if each.has(name, metric)}
        rows.append(Row((names or {}).get(paper_name(each.label), each.label), each, cells))
    table = Table(
        title,
        groups[0].scale,
        metric,
        sets,
        rows,
        baseline.label if baseline else None,
        any(cell.paper is not None for row in rows for cell in row.cells.values()),
    )
    for name in sets:
        lower = groups[0].tested[0].metrics[metric].better == 'lower'
        _rank([row.cells[name] for row in rows if name in row.cells], table.digits, lower)
    table.notes = notes_of(table, LEVEL)
    return table


def _cell(each: Group, dataset: str, metric: str, baseline: Group | None, numbers: PaperTable | None) -> Cell:
    means = np.array([tested.sets[dataset].mean[metric] for tested in each.tested], dtype=np.float64)
    cell = Cell(*mean_and_deviation(means))
    if baseline is not None and each is not baseline and baseline.has(dataset, metric):
        shared = each.shared_seeds(baseline)
        one, other = (every.of_seeds(shared) if shared else every for every in (each, baseline))
        images = list(each.tested[0].sets[dataset].images)
        values, others = (every.values(dataset, metric, images) for every in (one, other))
        cell.difference = paired_difference(values, others, same_seeds=bool(shared))
    if numbers is not None:
        name = paper_name(each.label)
        cell.paper = numbers.value(each.scale, name, dataset)
        reference = numbers.value(each.scale, BASELINE, dataset)
        if cell.paper is not None and reference is not None and name != BASELINE:
            cell.paper_difference = cell.paper - reference
    return cell


def _rank(cells: list[Cell], digits: int, lower_is_better: bool) -> None:
    """Mark best and second best; what looks equal is marked alike, and one method alone is not the best."""
    sign = -1 if lower_is_better else 1
    shown = [round(sign * cell.mean, digits) for cell in cells]
    places = sorted({value for value in shown if not math.isnan(value)}, reverse=True)[:2]
    if len(cells) > 1:
        for cell, value in zip(cells, shown, strict=True):
            cell.rank = places.index(value) + 1 if value in places else 0


def _shown(metric: str) -> str:
    return {'psnr': 'PSNR (dB)', 'ssim': 'SSIM'}.get(metric, metric.upper())
