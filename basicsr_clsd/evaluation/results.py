"""Read what tests wrote: ``results/NAME/results.json``."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.origin import experiment_of

FILE = 'results.json'
TABLES = 'comparison'  # name of the files that a comparison writes
VERSION = 1
BICUBIC = 'bicubic'
SEED = re.compile(r'[-_](?:seed|s)(\d+)$')

Values = dict[str, float]


class _Record(BaseModel):
    """A part of the file; keys that later versions add are let through."""

    model_config = ConfigDict(extra='ignore')


class Measured(_Record):
    """Metrics of one method on one set; values that are not finite are the texts ``inf`` and ``nan`` in the file."""

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


class Network(_Record):
    """One tested network: parameters, multiply-adds for a 1280x720 output, seconds for ``latency_size``, bytes.

    ``images`` is where its images are in the folder, with ``{set}`` and ``{image}`` for the names; None: they were not
    kept.
    """

    checkpoint: str | None = None
    arch: str | None = None
    parameters: float | None = None
    macs_1280x720: float | None = None
    latency_s: float | None = None
    latency_size: str | None = None
    peak_bytes: float | None = None
    self_ensemble: bool = False
    images: str | None = None
    run: Run | None = None


class _File(_Record):
    version: int = VERSION
    name: str
    scale: int
    protocol: str
    protocol_name: str | None = None
    lower_is_better: list[str] = []
    notes: list[str] = []
    sets: dict[str, Annotated[dict[str, Measured], Field(min_length=1)]] = Field(min_length=1)
    networks: dict[str, Network] = {}

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


class Tested(BaseModel):
    """One row of one test: a network, or bicubic upscaling, on some sets at one scale.

    Args:
        row: Its name in the test's table.
        label: Its method: the name without ``train_``, scale and seed, with ``+`` for a training's self-ensemble, or
            what the user called it.
        seed: Of its training; None where nothing tells.
        scale: Super-resolution factor.
        protocol: How was measured, in words.
        protocol_name: The protocol's name, where the file has one.
        name: Of the test.
        folder: The test's folder.
        lower_is_better: Metrics that are better the lower they are.
        sets: By name.
        network: What is known of it.
        remarks: How else it was tested, in words.
    """

    row: str
    label: str
    seed: int | None
    scale: int
    protocol: str
    protocol_name: str | None
    name: str
    folder: Path
    lower_is_better: list[str]
    sets: dict[str, Measured]
    network: Network
    remarks: list[str] = []

    @property
    def options(self) -> dict[str, Any] | None:
        """The resolved options of its training, where they are known."""
        return self.network.run.options if self.network.run else None

    @property
    def experiment(self) -> Path | None:
        """The folder of its training, where the checkpoint still lies in one."""
        return experiment_of(self.network.checkpoint) if self.network.checkpoint else None


def read_results(path: Path, label: str | None = None) -> list[Tested]:
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
        network = content.networks.get(row, Network())
        training = content.training_of(row)
        known_as = training.name if training else row
        in_name = SEED.search(known_as)
        seed = network.run.manual_seed if network.run else None
        method = label_of(known_as, content.scale) + ('+' if network.self_ensemble and training else '')
        found.append(
            Tested(
                row=row,
                label=row if row == BICUBIC else label or method,
                seed=int(in_name[1]) if seed is None and in_name else seed,
                scale=content.scale,
                protocol=content.protocol,
                protocol_name=content.protocol_name,
                name=content.name,
                folder=file.parent,
                lower_is_better=content.lower_is_better,
                sets={dataset: by_row[row] for dataset, by_row in content.sets.items() if row in by_row},
                network=network,
                remarks=[note.removeprefix(f'{row}: ') for note in content.notes if note.startswith(f'{row}: ')],
            )
        )
    return found


def label_of(name: str, scale: int) -> str:
    """The method's name in a run's: ``train_CLSD_x2_seed1`` at x2 is ``CLSD``."""
    name = SEED.sub('', name).removeprefix('train_')
    return re.sub(rf'_x{scale}(?=_|$)', '', name) or name


def read_all(texts: Sequence[str]) -> list[Tested]:
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


def _parse(file: Path) -> _File:
    try:
        return _File.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f'{file}: cannot be read: {error.strerror}') from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = '.'.join(map(str, problem['loc']))
        message = problem['msg'].removeprefix('Value error, ')
        raise UserError(f'{file}: not the results of a test: {where + ": " if where else ""}{message}') from error
