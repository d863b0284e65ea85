"""Figures: how all look, how they are written, and those of tests: PSNR against the heads' depth and against cost."""

import io
import math
import re
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from basicsr_clsd.evaluation.results import BICUBIC
from basicsr_clsd.reporting.groups import Group
from basicsr_clsd.reporting.notes import flat
from basicsr_clsd.runtime.files import write_bytes

# Okabe and Ito's colours, which the colour-blind can tell apart, without those that vanish on white or black.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
INK = '#1f2a36'  # in the report, the colour of its text
HEAD_BLOCKS = ('network_g.head_num_block', 'network_g.head.num_block')  # of EDSRHeads, of WithHeads
KINDS = ('.png', '.svg')
DPI = 160
COLUMNS = 3
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
    figure, axes = panels(len(names))
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
    figure, (axis,) = panels(1)
    for (amount, mean, deviation, name), color in zip(points, cycle(COLORS)):  # noqa: B905  (colours go round)
        axis.errorbar(amount * factor, mean, deviation, color=color, marker='o', capsize=3, label=name)
    axis.set_xlabel(f'{label} ({unit})')
    axis.set_ylabel('PSNR (dB)')
    axis.set_title(f'{dataset} x{groups[0].scale}', fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda value, _: f'{value:,g}')
    axis.margins(0.15)
    legend(figure, *axis.get_legend_handles_labels())
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


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with panels in rows of at most three."""
    columns = min(count, COLUMNS)
    rows = math.ceil(count / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(3.4 * columns, 4.2), 2.8 * rows), layout='constrained')
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend below all panels."""
    with mpl.rc_context(STYLE):
        columns = max(1, min(len(labels), int(figure.get_figwidth() * 11 / (max(map(len, labels)) + 6))))
        figure.legend(handles, labels, loc='outside lower center', ncols=columns, fontsize=8)
