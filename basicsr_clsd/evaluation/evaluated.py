"""The rows of a table: the networks that the options name, ready to upscale as they are to be tested."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from basicsr_clsd.config import Options
from basicsr_clsd.config.components import Component
from basicsr_clsd.config.schema import FileName, TestedNetwork
from basicsr_clsd.errors import FAULTS, UserError, first_line, out_of_memory
from basicsr_clsd.evaluation.complexity import Complexity, device_in_words, lr_shape, measure_cost
from basicsr_clsd.evaluation.results import BICUBIC, NetworkFacts, Note, Run
from basicsr_clsd.inference.loader import load
from basicsr_clsd.inference.network import Network
from basicsr_clsd.inference.tiles import Tiling, tiled
from basicsr_clsd.inference.transforms import SIZE as ENSEMBLE
from basicsr_clsd.networks.check import channels_of
from basicsr_clsd.networks.origin import experiment_of, training_of
from basicsr_clsd.networks.zoo import ONNX, model_file


class EvaluatedModel:
    """A network as it is tested: in tiles where the options ask for them or memory does, with or without the ensemble.

    Args:
        name: Its row in the tables.
        checkpoint: Where its weights are from.
        network: The network.
        options: Scale, tiles and channels.
        ensemble: Test the mean of the eight turned and mirrored images' outputs.
        precision: What the network was opened in, for the notes.
    """

    def __init__(  # noqa: PLR0913
        self,
        name: str,
        checkpoint: str,
        network: Network,
        options: Options,
        ensemble: bool,
        precision: str = 'fp32',
    ) -> None:
        self.name, self.checkpoint, self.network, self.ensemble = name, checkpoint, network, ensemble
        self.precision = precision
        self._shape = lr_shape(options.scale, channels_of(options, 'test', 'val'))
        val = options.val
        self.tiles = tiled(network, name, val.tile, overlap=val.tile_overlap, ensemble=ensemble)

    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w) in [0, 1] to (N, C, h·s, w·s), unclipped, on the CPU.

        Raises:
            UserError: The network cannot take an image of this size, or its output is not finite: rounded to bytes, it
                would look like any image.
        """
        try:
            output = self.tiles(lq)
        except FAULTS as error:
            if out_of_memory(error):
                raise
            size = f'{lq.shape[3]}x{lq.shape[2]}'
            raise UserError(f'{self.checkpoint}: cannot upscale an image of {size}: {first_line(error)}') from error
        if not output.isfinite().all():
            raise UserError(f'{self.checkpoint}: its network makes values that are not finite')
        return output

    def complexity(self, latency: bool) -> Complexity:
        """What it costs, of the whole image; with ``latency`` time and memory are measured."""
        macs = self.network.macs(self._shape)
        if macs is not None and self.ensemble:
            macs *= ENSEMBLE
        complexity = Complexity(self.network.parameters, macs)
        if latency:
            scale = self.tiles.scale
            complexity.latency_size = f'{self._shape[3] * scale}x{self._shape[2] * scale}'
            complexity.latency_device = device_in_words(self.network.device)
            try:
                cost = measure_cost(self.tiles.upscale, self._shape, self.network.device)
                complexity.latency_s, complexity.peak_bytes = cost
            except (*FAULTS, MemoryError) as error:
                complexity.latency_failure = 'memory ran out' if out_of_memory(error) else first_line(error)
        return complexity

    def notes(self, complexity: Complexity, tiling: Tiling | None) -> list[Note]:
        """What is special about how it was tested; ``tiling``: the smallest tiles of all images."""
        notes = []
        if self.precision != 'fp32':
            notes.append(Note(row=self.name, kind='precision', text=f'computed in {self.precision}'))
        if self.ensemble:
            text = f'mean of {ENSEMBLE} turned and mirrored images (self-ensemble)'
            notes.append(Note(row=self.name, kind='self_ensemble', text=text))
        if tiling is not None:
            other = ', not the result of the whole image' if tiling.unbounded else ''
            text = f'tiles of {tiling.tile} pixels, overlap {tiling.overlap}{other}'
            notes.append(Note(row=self.name, kind='tiles', text=text))
        if complexity.latency_failure is not None:
            size = complexity.latency_size
            text = f'no time and memory of an output of {size}: {complexity.latency_failure}'
            notes.append(Note(row=self.name, kind='no_latency', text=text))
        return notes

    def facts(self, complexity: Complexity, tiling: Tiling | None, images: str | None) -> NetworkFacts:
        """What the results say of it.

        Args:
            complexity: What it costs.
            tiling: The smallest tiles of all images.
            images: Where its images are; None: they were not kept.
        """
        run = training_of(self.checkpoint)
        return NetworkFacts(
            checkpoint=self.checkpoint,
            arch=self.network.arch,
            **vars(complexity),
            self_ensemble=self.ensemble,
            tile=tiling and tiling.tile,
            tile_overlap=tiling and tiling.overlap,
            images=images,
            run=None if run is None else Run(**run),
        )


def load_models(options: Options, precision: str = 'fp32') -> list[EvaluatedModel]:
    """Open what the options name: ``networks``, or ``network_g`` with the weights of ``path``.

    Args:
        options: Checked options.
        precision: What the networks compute in, see :func:`~basicsr_clsd.inference.loader.load`.

    Raises:
        UserError: One line that names the file or key at fault.
    """
    if options.name == BICUBIC and not options.networks:
        raise UserError(f"name: '{BICUBIC}' is the other row of the table; choose another")
    if BICUBIC in options.networks:
        raise UserError(f"networks.{BICUBIC}: is the name of the table's first row; choose another")
    if not options.networks:
        checkpoint = str(options.path.pretrain_network_g)
        path = options.path
        keyed = path.param_key_g, 'path.param_key_g'
        network = _load(options, options.network_g, checkpoint, keyed, precision, path.strict_load_g)
        return [EvaluatedModel(options.name, checkpoint, network, options, options.val.self_ensemble, precision)]
    models = []
    for name, section in options.networks.items():
        asked = f'networks.{name}.param_key' if 'param_key' in section.model_fields_set else ''
        keyed = section.param_key, asked
        network = _load(options, section.network_g or options.network_g, section.checkpoint, keyed, precision)
        ensemble = options.val.self_ensemble if section.self_ensemble is None else section.self_ensemble
        models.append(EvaluatedModel(name, section.checkpoint, network, options, ensemble, precision))
    return models


def _load(
    options: Options,
    section: Component,
    checkpoint: str,
    keyed: tuple[str | None, str],
    precision: str,
    strict: bool = True,
) -> Network:
    path = model_file(checkpoint)
    key, option = keyed
    return load(
        path,
        None if path.suffix.lower() == ONNX else section,
        options.scale,
        keys=[] if key is None else [key],
        option=option,
        strict=strict,
        channels=channels_of(options, 'test', 'val'),
        precision=precision,
        gpu=options.num_gpu != 0,
    )


def named_checkpoints(texts: Sequence[str]) -> dict[str, TestedNetwork]:
    """Networks from texts ``NAME=FILE`` or ``FILE``.

    A file without a name gets that of its experiment or, in none, its own; several files of one experiment get both.

    Raises:
        UserError: Two have one name, or one's is not fit for files.
    """
    named = [_split(text) for text in texts]
    experiments = [experiment_of(file) if name is None else None for name, file in named]
    networks: dict[str, TestedNetwork] = {}
    for text, (given, file), experiment in zip(texts, named, experiments, strict=True):
        name = Path(file).stem if given is None else given
        if experiment is not None:
            name = experiment.name + (f'_{name}' if experiments.count(experiment) > 1 else '')
        try:
            name = TypeAdapter(FileName).validate_python(name)
        except ValidationError as error:
            raise UserError(f"--checkpoints {text}: a row's name must be fit to name a folder") from error
        if name in networks:
            raise UserError(f"--checkpoints: two are named '{name}'; give them names, as in NAME=FILE")
        networks[name] = TestedNetwork(checkpoint=file)
    return networks


def _split(text: str) -> tuple[str | None, str]:
    """Name and file of ``NAME=FILE``; a sign behind a slash is part of a file's name."""
    name, equals, file = text.partition('=')
    return (name, file) if equals and '/' not in name else (None, text)
