"""The report: one HTML file with tables, curves, options and an image viewer, which needs no network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from basicsr_clsd import __version__
from basicsr_clsd.engine.records import FILE as METRICS
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.results import BICUBIC, FILE, ResultRow, read_all, without_comparisons
from basicsr_clsd.evaluation.tables import NOTHING, Grid, cost_grid
from basicsr_clsd.images import comparison
from basicsr_clsd.reporting.comparison import compare
from basicsr_clsd.reporting.figures import COSTS, cost, head_blocks, inline_svg
from basicsr_clsd.reporting.groups import Group, group, named_tests
from basicsr_clsd.reporting.notes import flat
from basicsr_clsd.reporting.runs import TrainingRun, is_training, read_training
from basicsr_clsd.reporting.tables import grids
from basicsr_clsd.reporting.training_curves import loss_curves, validation_curves
from basicsr_clsd.reporting.viewer import ViewerData, pictures_note, viewer_data

TEMPLATES = Path(__file__).with_name('page')
SCRIPTS = ('metrics.js', 'pictures.js', 'viewer.js', 'controls.js')  # in the order of their needs
PHONE = 5  # inches; a wider figure is to be moved from side to side there


@dataclass
class Sources:
    """What a report is made of: rows of tests, and trainings."""

    tested: list[ResultRow]
    runs: list[TrainingRun]


def read_sources(texts: Sequence[str]) -> Sources:
    """Read results and experiments; the experiment of a tested checkpoint is found where it still lies.

    Args:
        texts: Folders of tests or trainings, or METHOD=FOLDER for a test.

    Raises:
        UserError: A path is neither, or a file in it is damaged.
    """
    results, folders = [], []
    for text in without_comparisons(texts):
        path = Path(text).expanduser()
        if path.is_dir() and not (path / FILE).is_file():
            if not is_training(path):
                raise UserError(f'{text}: neither the folder of a test ({FILE}) nor of a training ({METRICS})')
            folders.append(path)
        else:
            results.append(text)
    tested = read_all(results)
    folders += [each.experiment for each in tested if each.experiment and is_training(each.experiment)]
    distinct = {folder.resolve(): folder for folder in reversed(folders)}
    return Sources(tested, [read_training(folder) for folder in reversed(distinct.values())])


def report_page(sources: Sources, title: str, folder: Path, limit: int, paper: bool, baseline: str | None) -> str:
    """Make the page.

    Args:
        sources: What it shows.
        title: Its title.
        folder: Where it will be; what is linked is linked from there.
        limit: Bytes of the page that pictures may take.
        paper: Put the paper's numbers into the tables.
        baseline: Method that differences are to; default ``EDSR``.

    Raises:
        UserError: The results do not go together, or an image cannot be decoded.
    """
    tables = compare(sources.tested, baseline, paper) if sources.tested else []
    groups = group(sources.tested)
    named = named_tests(groups)
    data = viewer_data(named, limit, folder)
    environment = Environment(
        loader=PackageLoader('basicsr_clsd.reporting', 'page'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('report.html.j2').render(
        title=title,
        version=__version__,
        css=_trusted(comparison.part(comparison.STYLE)) + _part('report.css'),
        scripts=[_trusted(comparison.part(name)) for name in comparison.SCRIPTS] + [_part(name) for name in SCRIPTS],
        tables=[{'title': table.title, 'grids': grids(table), 'notes': table.notes} for table in tables],
        sheets=_sheets(named, data),
        scenes=_json({'scenes': data.scenes}) if data.scenes else None,
        image_note=pictures_note(data, limit),
        figures=_figures(groups, sources.runs),
        costs=_costs(groups),
        runs=[{'name': run.name, 'yaml': yaml.safe_dump(run.options, sort_keys=False)} for run in sources.runs],
        differences=_differences(sources.runs),
        environment=[(run.name, start.text()) for run in sources.runs for start in run.starts],
    )


def _part(name: str) -> Markup:
    return _trusted((TEMPLATES / name).read_text(encoding='utf-8'))


def _trusted(text: str) -> Markup:
    """Text of the package's own files, which stands in the page as it is."""
    return Markup(text)  # noqa: S704


def _json(values: Any) -> Markup:
    """JSON that cannot end the script element that it stands in."""
    return Markup(json.dumps(values, ensure_ascii=False).replace('<', '\\u003c'))  # noqa: S704


def _sheets(named: Sequence[tuple[str, ResultRow]], data: ViewerData) -> list[dict[str, Any]]:
    """PSNR and SSIM of every image, one sheet per set and scale."""
    sheets: dict[tuple[int, str], dict[str, ResultRow]] = {}
    for name, tested in named:
        for dataset in tested.sets:
            sheets.setdefault((tested.scale, dataset), {})[name] = tested
    made = []
    for (scale, dataset), by_name in sheets.items():
        images = dict.fromkeys(image for tested in by_name.values() for image in tested.sets[dataset].images)
        rows = [
            {
                'name': image,
                'scene': data.places.get((scale, dataset, image)),
                'cells': [_values(tested.sets[dataset].images.get(image, {})) for tested in by_name.values()],
            }
            for image in images
        ]
        made.append({'title': f'{dataset} x{scale}', 'head': list(by_name), 'rows': rows})
    return made


def _values(values: dict[str, float]) -> str:
    shown = [f'{values[metric]:.{digits}f}' for metric, digits in (('psnr', 2), ('ssim', 4)) if metric in values]
    return ' / '.join(shown) or NOTHING


def _figures(groups: Sequence[Group], runs: Sequence[TrainingRun]) -> list[dict[str, Any]]:
    """All figures for which there are numbers."""
    made: list[tuple[str, Figure | None]] = []
    if any('psnr' in metrics for run in runs for metrics in run.validations.values()):
        made.append(('PSNR of the validations', validation_curves(runs)))
    if any(name.startswith('L_') for run in runs for name in run.terms):
        made.append(('Loss terms, as weighted in the sum', loss_curves(runs)))
    made.append(("PSNR against the heads' residual blocks", head_blocks(groups)))
    for scale in sorted({each.scale for each in groups}):
        of_scale = [each for each in groups if each.scale == scale]
        dataset = next(iter(of_scale[0].tested[0].sets))
        for against, (label, _, _) in COSTS.items():
            made.append((f'PSNR against {label}, x{scale}', cost(of_scale, against, dataset)))
    return [
        {
            'title': title,
            'wide': figure.get_figwidth() > PHONE,
            'svg': Markup(inline_svg(figure, f'figure{number}')),  # noqa: S704  (matplotlib escapes)
        }
        for number, (title, figure) in enumerate(made)
        if figure is not None
    ]


def _costs(groups: Sequence[Group]) -> Grid | None:
    """What the networks cost, as far as the tests know."""
    known = {
        f'{each.label} x{each.scale}': network
        for each in groups
        for network in [each.tested[0].network]
        if each.label != BICUBIC and any((network.parameters, network.macs_1280x720, network.latency_s))
    }
    return cost_grid(known) if known else None


def _differences(runs: Sequence[TrainingRun]) -> list[tuple[str, list[str]]]:
    """Options that are not the same in all runs, but for names and folders."""
    options = [flat(run.options) for run in runs]
    keys = dict.fromkeys(key for one in options for key in one if key != 'name' and not key.startswith('path.'))
    return [
        (key, [NOTHING if one.get(key) is None else str(one[key]) for one in options])
        for key in keys
        if any(one.get(key) != options[0].get(key) for one in options)
    ]
