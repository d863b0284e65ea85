"""Curves of trainings: validations, their differences to a baseline, and loss terms."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from basicsr_clsd.errors import UserError, suggest
from basicsr_clsd.reporting.figures import COLORS, INK, legend, panels
from basicsr_clsd.reporting.runs import Curve, TrainingRun
from basicsr_clsd.reporting.statistics import mean_and_deviation

LINES: tuple[Any, ...] = ('-', '--', ':')
METRICS = {'psnr': 'PSNR (dB)'}  # how an axis names one
FEW = 8  # points, which are then marked
WIDE = 30  # ratio of values above which powers of ten alone are labelled


def validation_curves(runs: Sequence[TrainingRun], metric: str = 'psnr') -> Figure:
    """A metric of the validations of several runs, one panel per set.

    Raises:
        UserError: No run has the metric.
    """
    sets = _sets_with(runs, metric)
    return _panels(
        [run.name for run in runs],
        {name: [run.curve(name, metric) for run in runs] for name in sets},
        METRICS.get(metric, metric.upper()),
    )


def difference_curves(runs: Sequence[TrainingRun], baseline: str, metric: str = 'psnr') -> Figure:
    """A metric of the validations minus that of a baseline, run by run of the same seed, one panel per set.

    Runs of one method are its seeds: a line is the mean over those that the baseline has, too, at the iterations that
    all have; the band around it is their standard deviation (n - 1).

    Args:
        runs: Trainings of the methods and of the baseline.
        baseline: Method of some of the runs.
        metric: Of the validations.

    Raises:
        UserError: No run has the metric or is of the baseline, two are of one method and seed, they are of several
            scales, or no other run has a seed, set and iteration of the baseline.
    """
    sets = _sets_with(runs, metric)
    scales = sorted({run.scale for run in runs})
    if len(scales) > 1:
        raise UserError(f'--baseline: trainings of scales {", ".join(map(str, scales))}; give those of one')
    methods: dict[str, dict[int | None, TrainingRun]] = {}
    for run in runs:
        twin = methods.setdefault(run.method, {}).setdefault(run.seed, run)
        if twin is not run:
            raise UserError(f'{run.folder}: a second training of {run.method}, seed {run.seed}, beside {twin.folder}')
    if baseline not in methods:
        raise UserError(f'--baseline: no method {baseline!r} in these trainings{suggest(baseline, methods)}')
    others = methods.pop(baseline)
    labels, spreads = [], []
    for method, seeds in methods.items():
        pairs = [(seeds[seed], others[seed]) for seed in seeds if seed in others]
        spread = {
            name: _difference([(one.curve(name, metric), other.curve(name, metric)) for one, other in pairs])
            for name in sets
        }
        if any(spread.values()):
            labels.append(f'{method} ({len(pairs)} seeds)' if len(pairs) > 1 else method)
            spreads.append(spread)
    if not spreads:
        raise UserError(f'--baseline: no other training shares a seed, a set and an iteration with {baseline}')
    shown = {name: [spread[name] for spread in spreads] for name in sets if any(spread[name] for spread in spreads)}
    figure = _panels(
        labels,
        {name: [[(at, mean) for at, mean, _ in spread] for spread in each] for name, each in shown.items()},
        f'{METRICS.get(metric, metric.upper())}, minus {baseline}',
    )
    for axis, each in zip(figure.axes, shown.values(), strict=False):  # an axis may be left over
        for line, spread in zip(axis.lines, filter(None, each), strict=True):
            at, mean, deviation = np.array(spread).T
            axis.fill_between(at, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.axhline(0, color=INK, linewidth=0.8)
    return figure


def loss_curves(runs: Sequence[TrainingRun]) -> Figure:
    """Each loss term of several runs, as it is weighted in the sum, one panel per term.

    Raises:
        UserError: There is no rows with loss terms.
    """
    terms = list(dict.fromkeys(name for run in runs for name in run.terms if name.startswith('L_')))
    terms.sort(key=lambda name: name == 'L_total')
    if not terms:
        raise UserError(f'{runs[0].folder}: no rows with loss terms')
    names = [run.name for run in runs]
    return _panels(names, {term: [run.terms.get(term, []) for run in runs] for term in terms}, 'weighted', log=True)


def _sets_with(runs: Sequence[TrainingRun], metric: str) -> list[str]:
    """Sets on which some run has the metric."""
    sets = list(dict.fromkeys(name for run in runs for name in run.validations if run.curve(name, metric)))
    if not sets:
        raise UserError(f'{runs[0].folder}: no validation with the metric {metric!r}')
    return sets


def _difference(pairs: Sequence[tuple[Curve, Curve]]) -> list[tuple[int, float, float]]:
    """Of pairs of curves: iterations that all have, with mean and standard deviation of the differences there."""
    differences = []
    for one, other in pairs:
        subtracted = dict(other)
        differences.append({at: value - subtracted[at] for at, value in one if at in subtracted})
    spread = []
    for at in sorted(set.intersection(*map(set, differences)) if differences else ()):
        mean, deviation = mean_and_deviation(np.array([each[at] for each in differences]))
        spread.append((at, mean, deviation or 0.0))
    return spread


def _panels(names: Sequence[str], curves: dict[str, list[Curve]], label: str, log: bool = False) -> Figure:
    """One panel per title, one line per name."""
    figure, axes = panels(len(curves))
    styles = [(COLORS[n % len(COLORS)], LINES[n // len(COLORS) % len(LINES)]) for n in range(len(names))]
    for axis, (title, lines) in zip(axes, curves.items(), strict=True):
        for (color, style), curve in zip(styles, lines, strict=True):
            marker = 'o' if len(curve) <= FEW else ''
            axis.plot(*zip(*curve, strict=True), color=color, linestyle=style, marker=marker, markersize=3)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel('iteration')
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.xaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
        axis.set_ylabel(label)
        if log and any(value > 0 for curve in lines for _, value in curve):
            axis.set_yscale('log')
            axis.yaxis.set_major_formatter(lambda value, _: f'{value:g}')
            wide = max(v for c in lines for _, v in c) > WIDE * min(v for c in lines for _, v in c if v > 0)
            labelled = '' if wide else '2346'  # first digits of the values between powers of ten
            axis.yaxis.set_minor_formatter(FuncFormatter(partial(_plain, labelled)))
        elif not log:
            _show_the_end(axis, lines)
    handles = [Line2D([], [], color=color, linestyle=style) for color, style in styles]
    legend(figure, handles, names)
    return figure


def _plain(first_digits: str, value: float, position: int | None) -> str:
    return f'{value:g}' if f'{value:e}'[0] in first_digits else ''


def _show_the_end(axis: Axes, curves: Sequence[Curve]) -> None:
    """Leave the first tenth of a training out of the range of values, which its rise would take up."""
    late = [v for curve in curves for at, v in curve if at >= curve[-1][0] / 10 and math.isfinite(v)]
    if late and min(late) < max(late):
        margin = 0.05 * (max(late) - min(late))
        axis.set_ylim(min(late) - margin, max(late) + margin)
