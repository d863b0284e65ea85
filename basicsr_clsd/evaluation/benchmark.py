"""Test a trained network on benchmark sets, beside bicubic upscaling."""

from pathlib import Path

from rich.console import Console
from rich.progress import track

from basicsr_clsd.config import Options, write_resolved
from basicsr_clsd.config.paths import output_root
from basicsr_clsd.data.paired_dataset import PairedDataset, check_decodable
from basicsr_clsd.distributed import Processes
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.evaluate import Scores, bicubic, joined, measure, upscaled
from basicsr_clsd.evaluation.pictures import Comparison
from basicsr_clsd.evaluation.report import Report, describe
from basicsr_clsd.files import check_writable, set_aside, write_image
from basicsr_clsd.models import SupervisedModel

BICUBIC = 'bicubic'


class Benchmark:
    """A test of one network on any number of sets; nothing is written before :meth:`run`.

    Args:
        options: Checked options.
        model: With the weights to test.
        sets: Data sets by name.
        processes: Who shares the images; all get all results, the main one writes.

    Raises:
        UserError: An image cannot be decoded, the folder of the results cannot be written, or the name is taken.
    """

    def __init__(
        self, options: Options, model: SupervisedModel, sets: dict[str, PairedDataset], processes: Processes
    ) -> None:
        self.options, self.model, self.sets, self.processes = options, model, sets, processes
        if options.name == BICUBIC:
            raise UserError(f"name: '{BICUBIC}' is the other row of the table; choose another")
        self.folder = output_root(options.path.results_root, 'results') / options.name
        check_writable(self.folder)
        for dataset in sets.values():
            check_decodable(dataset)

    def run(self, console: Console) -> Report:
        """Measure, print the table, and write ``results/NAME``; an earlier folder of that name is renamed.

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
        report = Report(options.name, str(options.path.pretrain_network_g), options.scale, describe(options), scores)
        if self.processes.main:
            report.print(console)
            report.write(self.folder)
        return report

    def _measure_set(self, name: str, dataset: PairedDataset, console: Console) -> dict[str, Scores]:
        scores, comparison = {BICUBIC: Scores(), self.options.name: Scores()}, Comparison()
        with self.processes.together():
            self._measure_share(name, dataset, console, scores, comparison)
        names = [dataset.name(index) for index in range(len(dataset))]
        parts = self.processes.gather((scores, comparison))
        if self.options.val.comparison and self.processes.main:
            Comparison.joined([part for _, part in parts], names).write(self.picture(name))
        return {method: joined([part[method] for part, _ in parts], names) for method in scores}

    def _measure_share(
        self,
        name: str,
        dataset: PairedDataset,
        console: Console,
        scores: dict[str, Scores],
        comparison: Comparison,
    ) -> None:
        """Measure this process's images of a set, into ``scores`` and ``comparison``."""
        options = self.options
        share = range(self.processes.rank, len(dataset), self.processes.world)
        samples = track(
            upscaled(dataset, self.model.upscale, share),
            name,
            len(share),
            console=console,
            disable=not (console.is_terminal and self.processes.main),
            transient=True,
        )
        for sample in samples:
            outputs = {BICUBIC: bicubic(sample.lq, options.scale), options.name: sample.outputs[0]}
            for method, image in outputs.items():
                scores[method].images[sample.name] = measure(image, sample.gt, options.val.metrics)
            if options.val.save_img:
                file = f'{sample.name}_{options.val.suffix or options.name}.png'
                write_image(sample.outputs[0], self.folder / 'visualization' / name / file)
            if options.val.comparison:
                comparison.add(sample.name, outputs, sample.gt)

    def picture(self, dataset: str) -> Path:
        """Where the picture of crops of a set is written."""
        return self.folder / f'comparison_{dataset}.png'
