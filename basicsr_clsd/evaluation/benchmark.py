"""Test trained networks on benchmark sets, beside bicubic upscaling."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from basicsr_clsd.config import Options, write_resolved
from basicsr_clsd.config.paths import located, output_root
from basicsr_clsd.config.protocols import name_of
from basicsr_clsd.config.schema import Dataset
from basicsr_clsd.data.paired_dataset import PairedDataset, check_decodable
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.complexity import Complexity
from basicsr_clsd.evaluation.crops import CropSheet
from basicsr_clsd.evaluation.evaluated import BICUBIC, EvaluatedModel
from basicsr_clsd.evaluation.metrics import (
    Image,
    Sample,
    Scores,
    bicubic,
    in_8_bits,
    joined,
    measure,
    measured,
    upscaled,
)
from basicsr_clsd.evaluation.results import VERSION, Measured, MetricProtocol, Note, ResultsFile
from basicsr_clsd.evaluation.tables import BenchmarkResult
from basicsr_clsd.inference.tiles import Tiling
from basicsr_clsd.runtime.distributed import Processes
from basicsr_clsd.runtime.files import check_writable, set_aside, write_image

SHOWN_IMAGES = 3  # of those that are left out of a mean


class Benchmark:
    """A test of networks on any number of sets; nothing is written before :meth:`run`.

    Args:
        options: Checked options.
        methods: The networks, with their weights.
        sets: Data sets by name.
        processes: Who shares the images; all get all results, the main one writes.

    Raises:
        UserError: An image cannot be decoded, or the folder of the results cannot be written.
    """

    def __init__(
        self, options: Options, methods: Sequence[EvaluatedModel], sets: dict[str, PairedDataset], processes: Processes
    ) -> None:
        self.options, self.methods, self.sets, self.processes = options, methods, sets, processes
        self.folder = output_root(options.path.results_root, 'results') / options.name
        check_writable(self.folder)
        for dataset in sets.values():
            check_decodable(dataset)

    def run(self, console: Console) -> ResultsFile:
        """Measure, print the tables, and write ``results/NAME``; an earlier folder of that name is renamed.

        The folder gets the tables (``results.md``, ``.csv``, ``.json``) and the resolved options; with ``val.save_img``
        the upscaled images, with ``val.comparison`` a picture of crops for each set.
        """
        options = self.options
        with self.processes.together():
            if self.processes.main:
                set_aside(self.folder)
                self.folder.mkdir(parents=True)
                write_resolved(options, self.folder / f'{options.name}.yml')
        scores = {name: self._measure_set(name, dataset, console) for name, dataset in self.sets.items()}
        with self.processes.together():
            costs = self._costs(console) if self.processes.main else {}
        results = self._results(scores, self.processes.gather(costs)[0], self._tilings())
        with self.processes.together():
            if self.processes.main:
                # What took long to measure must not be lost with the reader of a pipe, nor with a full disk.
                tables = BenchmarkResult(results)
                try:
                    tables.write(self.folder)
                finally:
                    tables.print(console)
        return results

    def _costs(self, console: Console) -> dict[str, Complexity]:
        methods = track(self.methods, 'complexity', console=console, disable=not console.is_terminal, transient=True)
        return {method.name: method.complexity(self.options.val.latency) for method in methods}

    def _tilings(self) -> dict[str, Tiling | None]:
        """The smallest tiles that each network was tested in, by any process: the memory of one may have run out."""
        parts = self.processes.gather([method.tiles.used for method in self.methods])
        return {
            method.name: min((tiling for tiling in tilings if tiling is not None), default=None)
            for method, tilings in zip(self.methods, zip(*parts, strict=True), strict=True)
        }

    def _results(
        self,
        scores: dict[str, dict[str, Scores]],
        costs: dict[str, Complexity],
        tilings: dict[str, Tiling | None],
    ) -> ResultsFile:
        options = self.options
        networks, notes = {}, []
        for dataset, by_row in scores.items():
            for row, of_row in by_row.items():
                notes += left_out_notes(dataset, row, of_row)
        for method in self.methods:
            name, tiling, cost = method.name, tilings[method.name], costs[method.name]
            networks[name] = method.facts(cost, tiling, self.images(name) if options.val.save_img else None)
            notes += method.notes(cost, tiling)
        return ResultsFile(
            version=VERSION,
            name=options.name,
            scale=options.scale,
            protocol_name=protocol_name(options),
            metrics={name: MetricProtocol.of(metric) for name, metric in options.val.metrics.items()},
            data={str(section.name): _located(section) for _, section in options.sets('test', 'val')},
            networks=networks,
            sets={
                dataset: {row: Measured(mean=of_row.mean(), images=of_row.images) for row, of_row in by_row.items()}
                for dataset, by_row in scores.items()
            },
            notes=notes,
        )

    def _measure_set(self, name: str, dataset: PairedDataset, console: Console) -> dict[str, Scores]:
        scores = {method: Scores() for method in (BICUBIC, *(method.name for method in self.methods))}
        comparison = CropSheet()
        with self.processes.together():
            self._measure_share(name, dataset, console, scores, comparison)
        names = [dataset.name(index) for index in range(len(dataset))]
        parts = self.processes.gather((scores, comparison))
        if self.options.val.comparison and self.processes.main:
            CropSheet.joined([part for _, part in parts], names).write(self.picture(name))
        return {method: joined([part[method] for part, _ in parts], names) for method in scores}

    def _measure_share(
        self,
        name: str,
        dataset: PairedDataset,
        console: Console,
        scores: dict[str, Scores],
        comparison: CropSheet,
    ) -> None:
        """Measure this process's images of a set, into ``scores`` and ``comparison``."""
        share = range(self.processes.rank, len(dataset), self.processes.world)
        samples = upscaled(dataset, lambda lq: [method.upscale(lq) for method in self.methods], share)
        results = track(
            measured(samples, partial(self._measure_image, name)),
            name,
            len(share),
            console=console,
            disable=not (console.is_terminal and self.processes.main),
            transient=True,
        )
        for sample, (outputs, values) in results:
            for method, of_method in values.items():
                scores[method].images[sample.name] = of_method
            if self.options.val.comparison:
                shown = {method: in_8_bits(image) for method, image in outputs.items()}
                comparison.add(sample.name, shown, in_8_bits(sample.gt))

    def _measure_image(self, dataset: str, sample: Sample) -> tuple[dict[str, Image], dict[str, dict[str, float]]]:
        """All rows' images of one sample, and their metrics."""
        options = self.options
        outputs: dict[str, Image] = {BICUBIC: bicubic(sample.lq, options.scale)}
        outputs |= zip((method.name for method in self.methods), sample.outputs, strict=True)
        values: dict[str, dict[str, float]] = {}
        for method, image in outputs.items():
            try:
                values[method] = measure(image, sample.gt, options.val.metrics)
            except UserError as error:
                raise UserError(f'{dataset}, {sample.name}: {error}') from error
            if options.val.save_img and method != BICUBIC:
                write_image(image, self._image(dataset, sample.name, method))
        return outputs, values

    def images(self, method: str) -> str:
        """Where a network's images are written, relative to ``folder``, with ``{set}`` and ``{image}`` for the names.

        ``IMAGE_METHOD.png`` as in BasicSR, or with ``val.suffix`` ``IMAGE_SUFFIX.png``, of several networks
        ``IMAGE_METHOD_SUFFIX.png``.
        """
        suffix = self.options.val.suffix or method
        if self.options.val.suffix and len(self.methods) > 1:
            suffix = f'{method}_{suffix}'
        return f'visualization/{{set}}/{{image}}_{suffix}.png'

    def _image(self, dataset: str, image: str, method: str) -> Path:
        return self.folder / self.images(method).replace('{set}', dataset, 1).replace('{image}', image, 1)

    def picture(self, dataset: str) -> Path:
        """Where the picture of crops of a set is written."""
        return self.folder / f'comparison_{dataset}.png'


def protocol_name(options: Options) -> str:
    """The protocol by name, or ``custom``."""
    sections = {name: {'type': metric.type, **metric.arguments()} for name, metric in options.val.metrics.items()}
    return name_of(sections, options.scale)


def left_out_notes(dataset: str, row: str, scores: Scores) -> list[Note]:
    """Which images of a set are not in the means of a row, and why."""
    notes = []
    for metric in scores.metrics():
        reasons: dict[str, list[str]] = {}
        for image, reason in scores.left_out(metric).items():
            reasons.setdefault(reason, []).append(image)
        for reason, images in reasons.items():
            shown = ', '.join(images[:SHOWN_IMAGES]) + ', ...' * (len(images) > SHOWN_IMAGES)
            rest = 'is not in the mean' if len(images) < len(scores.images) else 'there is no other'
            text = f'{metric} of {dataset} {reason}: {len(images)} of {len(scores.images)} ({shown}); {rest}'
            notes.append(Note(row=row, kind='left_out', text=text))
    return notes


def _located(section: Dataset) -> dict[str, Any]:
    """A section with whole paths, so that its images are found from anywhere."""
    values = section.as_dict()
    roots = {key: str(located(values[key]).absolute()) for key in ('dataroot_gt', 'dataroot_lq') if values.get(key)}
    return {**values, **roots}
