"""The results of a test, ``results/NAME/results.json``: written and read by the same classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from basicsr_clsd.config.components import Metric
from basicsr_clsd.config.protocols import CUSTOM, PROTOCOLS
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.origin import experiment_of

FILE = 'results.json'
TABLES = 'comparison'  # name of the files that a comparison writes
VERSION = 2
BICUBIC = 'bicubic'

Values = dict[str, float]


class _Record(BaseModel):
    """A part of the file; keys of later versions are ignored. ``NaN`` and ``Infinity`` are texts: JSON has none."""

    model_config = ConfigDict(extra='ignore', ser_json_inf_nan='strings')


class MetricProtocol(_Record):
    """How one metric was measured; tests can be compared where these fields are equal.

    Args:
        type: Its registered name.
        color: ``y``: on Y of YCbCr (BT.601).
        border: Pixels cut from each side.
        arguments: Its other arguments.
        better: Which way is better.
    """

    type: str
    color: Literal['y', 'rgb'] = 'rgb'
    border: int = 0
    arguments: dict[str, Any] = {}
    better: Literal['higher', 'lower'] = 'higher'

    @classmethod
    def of(cls, metric: Metric) -> 'MetricProtocol':
        """The protocol of a metric of the options."""
        arguments = dict(metric.arguments())
        return cls(
            type=metric.type,
            color='y' if arguments.pop('test_y_channel', False) else 'rgb',
            border=arguments.pop('crop_border', 0),
            arguments=arguments,
            better=metric.better,
        )

    def text(self) -> str:
        """The conditions in words."""
        channel = 'Y of YCbCr' if self.color == 'y' else 'RGB'
        return f'on {channel}, {self.border} pixels of border cut'


def protocol_text(metrics: Mapping[str, MetricProtocol], name: str) -> str:
    """The protocol's name, and its conditions in words; metrics of the same conditions are named together."""
    conditions: dict[str, list[str]] = {}
    for metric, how in metrics.items():
        conditions.setdefault(how.text(), []).append(metric)
    return f'{name}: ' + '; '.join(f'{" and ".join(names)} {text}' for text, names in conditions.items())


class Measured(_Record):
    """Metrics of one method on one set: the means, and the values of each image."""

    mean: Values
    images: Annotated[dict[str, Values], Field(min_length=1)]

    @model_validator(mode='after')
    def _every_image_is_measured(self) -> 'Measured':
        for image, values in self.images.items():
            for metric in self.mean.keys() - values.keys():
                raise ValueError(f'images.{image} has no {metric}')
        return self


class Run(_Record):
    """The training that a checkpoint came from; ``options`` are the resolved ones."""

    name: str
    manual_seed: int | None = None
    iteration: int | None = None
    options: dict[str, Any] | None = None


class NetworkFacts(_Record):
    """One tested network: parameters, multiply-adds for a 1280x720 output, seconds for ``latency_size``, bytes.

    ``images`` is where its images are in the folder, with ``{set}`` and ``{image}`` for the names; None: they were not
    kept.
    """

    checkpoint: str | None = None
    arch: str | None = None
    parameters: int | None = None
    macs_1280x720: int | None = None
    latency_s: float | None = None
    latency_size: str | None = None
    peak_bytes: int | None = None
    latency_device: str | None = None
    latency_failure: str | None = None
    self_ensemble: bool = False
    tile: int | None = None
    tile_overlap: int | None = None
    images: str | None = None
    run: Run | None = None


class Note(_Record):
    """What to know of a row: images that are not in a mean, or how else it was tested."""

    row: str
    kind: Literal['left_out', 'self_ensemble', 'tiles', 'precision', 'no_latency']
    text: str


class ResultsFile(_Record):
    """The whole file.

    Args:
        version: Of the format.
        name: Of the test.
        scale: Super-resolution factor.
        protocol_name: The protocol of PSNR and SSIM by name, or ``custom``.
        metrics: How was measured.
        data: The section of each set in the options, with whole paths: where HR and LR are.
        networks: What is known of each network, by row.
        sets: ``sets[set][row]``.
        notes: What to know of rows.
    """

    version: int = 1  # which had no such key at first
    name: str
    scale: int
    protocol_name: str = CUSTOM
    metrics: dict[str, MetricProtocol]
    data: dict[str, dict[str, Any]] = {}
    networks: dict[str, NetworkFacts] = {}
    sets: dict[str, Annotated[dict[str, Measured], Field(min_length=1)]] = Field(min_length=1)
    notes: list[Note] = []

    @model_validator(mode='before')
    @classmethod
    def _from_version_1(cls, content: Any) -> Any:
        """Version 1 told the protocol in words, unless it is one by name."""
        if isinstance(content, dict) and content.get('version', 1) == 1 and isinstance(content.get('scale'), int):
            protocol = PROTOCOLS.get(str(content.get('protocol_name')))
            if protocol is None:
                raise ValueError('results of format 1, by a protocol without a name; test again')
            sections = protocol.metrics(content['scale'])
            metrics = {name: MetricProtocol.of(Metric.model_validate(section)) for name, section in sections.items()}
            return {**content, 'metrics': metrics, 'notes': []}
        return content

    @field_validator('version')
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > VERSION:
            raise ValueError(f'results of format {version}; this program reads {VERSION}')
        return version

    def training_of(self, row: str) -> Run | None:
        """The training that a row is better known by; None where the row's own name was chosen for the table.

        The one row of a test of a single network has the name of the test.
        """
        network = self.networks.get(row)
        return network.run if network and row == self.name and len(self.networks) == 1 else None


class ResultRow(BaseModel):
    """One row of one test: a network, or bicubic upscaling, on some sets at one scale.

    Args:
        file: The test.
        folder: Its folder.
        row: Its name in the test's table.
        label: Its method: the name without ``train_``, scale and seed, with ``+`` for a training's self-ensemble, or
            what the user called it.
        seed: Of its training; None where it is not recorded.
        sets: By name.
    """

    file: ResultsFile
    folder: Path
    row: str
    label: str
    seed: int | None
    sets: dict[str, Measured]

    @property
    def scale(self) -> int:
        """Super-resolution factor."""
        return self.file.scale

    @property
    def metrics(self) -> dict[str, MetricProtocol]:
        """How was measured."""
        return self.file.metrics

    @property
    def network(self) -> NetworkFacts:
        """What is known of the network."""
        return self.file.networks.get(self.row, NetworkFacts())

    @property
    def conditions(self) -> list[str]:
        """How else it was tested, in words."""
        return [note.text for note in self.file.notes if note.row == self.row and note.kind != 'left_out']

    @property
    def options(self) -> dict[str, Any] | None:
        """The resolved options of its training, where they are known."""
        return self.network.run.options if self.network.run else None

    @property
    def experiment(self) -> Path | None:
        """The folder of its training, where the checkpoint still lies in one."""
        return experiment_of(self.network.checkpoint) if self.network.checkpoint else None


def read_results(path: Path, label: str | None = None) -> list[ResultRow]:
    """Read one test.

    Args:
        path: The folder, or its ``results.json``.
        label: What the user calls the method; not for a test of several networks.

    Raises:
        UserError: There is no such file, it is damaged or of a later format, or the label fits several networks.
    """
    file = path / FILE if path.is_dir() else path
    content = _parse(file)
    rows = list(dict.fromkeys(row for by_row in content.sets.values() for row in by_row))
    networks = [row for row in rows if row != BICUBIC]
    if label is not None and len(networks) != 1:
        raise UserError(f'{file}: {len(networks)} networks, so that they cannot all be called {label!r}')
    found = []
    for row in rows:
        network, training = content.networks.get(row, NetworkFacts()), content.training_of(row)
        seed = network.run.manual_seed if network.run else None
        method = method_label(training.name if training else row, content.scale, seed)
        method += '+' if network.self_ensemble and training else ''
        sets = {dataset: by_row[row] for dataset, by_row in content.sets.items() if row in by_row}
        known_as = row if row == BICUBIC else label or method
        found.append(ResultRow(file=content, folder=file.parent, row=row, label=known_as, seed=seed, sets=sets))
    return found


def method_label(name: str, scale: int, seed: int | None) -> str:
    """A run's name without what is recorded beside it: ``train_CLSD_x2_seed1`` at x2 with the seed 1 is ``CLSD``."""
    recorded = (f'x{scale}', f'seed{seed}', f's{seed}')
    return '_'.join(word for word in name.split('_') if word not in recorded).removeprefix('train_') or name


def read_all(texts: Sequence[str]) -> list[ResultRow]:
    """Read results given on a command line, as ``PATH`` or ``METHOD=PATH``."""
    found = []
    for text in without_comparisons(texts):
        label, equals, path = text.rpartition('=')
        # A path may hold the sign itself.
        named = equals and label and not Path(text).exists()
        found += read_results(Path(path if named else text).expanduser(), label if named else None)
    return found


def without_comparisons(texts: Sequence[str]) -> list[str]:
    """Leave out the folders of comparisons and ablations, which ``results/*`` names too.

    Raises:
        UserError: Nothing is left.
    """
    left = [text for text in texts if (Path(text) / FILE).exists() or not (Path(text) / f'{TABLES}.csv').exists()]
    if texts and not left:
        raise UserError(f'{texts[0]}: the tables of a comparison; give the tests that it is of')
    return left


def _parse(file: Path) -> ResultsFile:
    try:
        return ResultsFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f'{file}: cannot be read: {error.strerror}') from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = '.'.join(map(str, problem['loc']))
        message = str(problem.get('ctx', {}).get('error', problem['msg']))
        raise UserError(f'{file}: not the results of a test: {where + ": " if where else ""}{message}') from error
