"""Figures of trainings and tests: curves, differences to a baseline, PSNR against the heads' depth and against cost."""

import io
import math
import re
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from basicsr_clsd.errors import UserError, suggest
from basicsr_clsd.evaluation.results import BICUBIC
from basicsr_clsd.reporting.groups import Group
from basicsr_clsd.reporting.notes import flat
from basicsr_clsd.reporting.runs import Curve, TrainingRun
from basicsr_clsd.reporting.statistics import mean_and_deviation
from basicsr_clsd.runtime.files import write_bytes

# Okabe and Ito's colours, which the colour-blind can tell apart, without those that vanish on white or black.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
LINES: tuple[Any, ...] = ('-', '--', ':')
INK = '#1f2a36'  # in the report, the colour of its text
HEAD_BLOCKS = ('network_g.head_num_block', 'network_g.head.num_block')  # of EDSRHeads, of WithHeads
KINDS = ('.png', '.svg')
DPI = 160
METRICS = {'psnr': 'PSNR (dB)'}  # how an axis names one
FEW = 8  # points, which are then marked
COLUMNS = 3
WIDE = 30  # ratio of values above which powers of ten alone are labelled
COSTS = {
    'parameters': ('parameters', 'thousands', 1e-3),
    'macs_1280x720': ('multiply-adds for 1280×720', 'billions', 1e-9),
    'latency_s': ('latency for 1280×720', 'ms', 1e3),
}
STYLE: dict[Any, Any] = {
    'font.size': 9,
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#8894a0',
    'grid.alpha': 0.25,
    'legend.frameon': False,
    'lines.linewidth': 1.6,
    'svg.fonttype': 'none',  # text stays text
}


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
        raise UserError(f'--baseline: no other training has a seed of {baseline}, and a set and iteration, too')
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


def head_blocks(groups: Sequence[Group], dataset: str | None = None) -> Figure | None:
    """PSNR against the number of residual blocks of a head, as the paper's Fig. 3: mean and deviation over seeds.

    Args:
        groups: Methods whose training's options are known; those without heads are left out. Of several methods with
            one number of blocks, those count whose options else are the same.
        dataset: One set; default all.

    Returns:
        None if there are not two numbers of blocks to compare.
    """
    families: dict[str, dict[int, Group]] = {}
    for each in groups:
        options = flat(each.tested[0].options or {})
        blocks = next((options[key] for key in HEAD_BLOCKS if key in options), None)
        if isinstance(blocks, int):
            rest = {
                key: value
                for key, value in options.items()
                if key.startswith(('network_g.', 'train.', 'scale')) and key not in HEAD_BLOCKS
            }
            families.setdefault(repr((each.tested[0].network.self_ensemble, sorted(rest.items()))), {}).setdefault(
                blocks, each
            )
    chosen = max(families.values(), key=len, default={})
    sets = dict.fromkeys(name for each in chosen.values() for tested in each.tested for name in tested.sets)
    wanted = [dataset] if dataset else sets
    names = [name for name in wanted if sum(each.has(name, 'psnr') for each in chosen.values()) > 1]
    if not names:
        return None
    figure, axes = _figure(len(names))
    points = sorted(chosen.items())
    for axis, name, color in zip(axes, names, cycle(COLORS)):  # noqa: B905  (colours go round)
        found = [(count, *_over_seeds(each, name)) for count, each in points if each.has(name, 'psnr')]
        counts, means, deviations = zip(*found, strict=True)
        axis.errorbar(counts, means, deviations, color=color, marker='o', markersize=4, capsize=3)
        axis.set_title(f'{name} x{points[0][1].scale}', fontsize=9)
        axis.set_xlabel('residual blocks per head')
        axis.set_ylabel('PSNR (dB)')
        axis.set_xticks(counts)
    return figure


def cost(groups: Sequence[Group], against: str, dataset: str) -> Figure | None:
    """PSNR on a set against what the network costs.

    Args:
        groups: Methods; those whose cost is not known are left out.
        against: ``parameters``, ``macs_1280x720`` or ``latency_s``.
        dataset: Name of the set.

    Returns:
        None if the cost of none is known.
    """
    points = [
        (getattr(each.tested[0].network, against), *_over_seeds(each, dataset), each.label)
        for each in groups
        if each.label != BICUBIC and each.has(dataset, 'psnr') and getattr(each.tested[0].network, against)
    ]
    if not points:
        return None
    label, unit, factor = COSTS[against]
    figure, (axis,) = _figure(1)
    for (amount, mean, deviation, name), color in zip(points, cycle(COLORS)):  # noqa: B905  (colours go round)
        axis.errorbar(amount * factor, mean, deviation, color=color, marker='o', capsize=3, label=name)
    axis.set_xlabel(f'{label} ({unit})')
    axis.set_ylabel('PSNR (dB)')
    axis.set_title(f'{dataset} x{groups[0].scale}', fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda value, _: f'{value:,g}')
    axis.margins(0.15)
    _legend(figure, *axis.get_legend_handles_labels())
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = DPI) -> list[Path]:
    """Write a figure as PNG and SVG beside each other, with or without one of these extensions; folders are made."""
    name = path.stem if path.suffix in KINDS else path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in KINDS:
        content = io.BytesIO()
        with mpl.rc_context({**STYLE, 'svg.hashsalt': name}):
            figure.savefig(content, format=kind[1:], dpi=dpi, metadata={'Date': None} if kind == '.svg' else None)
        written.append(path.with_name(name + kind))
        write_bytes(content.getvalue(), written[-1])
    return written


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element for a page: no background, and lines and text in the page's colour.

    Args:
        figure: The figure.
        name: Makes its identifiers different from those of the page's other figures.
    """
    content = io.StringIO()
    with mpl.rc_context({**STYLE, 'svg.hashsalt': name}):
        figure.savefig(content, format='svg', transparent=True, metadata={'Date': None})
    svg = content.getvalue()
    svg = svg[svg.index('<svg') :].replace(INK, 'currentColor')
    # Shapes of ticks and clipped areas are named alike in all of matplotlib's files.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{name}-', svg)
    return re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)


def _over_seeds(each: Group, dataset: str) -> tuple[float, float]:
    means = [tested.sets[dataset].mean['psnr'] for tested in each.tested]
    return float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


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
    figure, axes = _figure(len(curves))
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
    _legend(figure, handles, names)
    return figure


def _plain(first_digits: str, value: float, position: int | None) -> str:
    return f'{value:g}' if f'{value:e}'[0] in first_digits else ''


def _show_the_end(axis: Axes, curves: Sequence[Curve]) -> None:
    """Leave the first tenth of a training out of the range of values, which its rise would take up."""
    late = [v for curve in curves for at, v in curve if at >= curve[-1][0] / 10 and math.isfinite(v)]
    if late and min(late) < max(late):
        margin = 0.05 * (max(late) - min(late))
        axis.set_ylim(min(late) - margin, max(late) + margin)


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure with panels in rows of at most three."""
    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(3.4 * columns, 4.2), 2.8 * rows), layout='constrained')
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes[:panels]


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend below all panels."""
    with mpl.rc_context(STYLE):
        columns = max(1, min(len(labels), int(figure.get_figwidth() * 11 / (max(map(len, labels)) + 6))))
        figure.legend(handles, labels, loc='outside lower center', ncols=columns, fontsize=8)
