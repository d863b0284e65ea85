"""Validation during training: all sets, shared out over the processes."""

import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from basicsr_clsd.archs.windows import window_of
from basicsr_clsd.config import Options
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.evaluation.metrics import Image, Sample, Scores, in_8_bits, joined, measure, measured, upscaled
from basicsr_clsd.inference.tiles import Tiles
from basicsr_clsd.models import SupervisedModel
from basicsr_clsd.runtime.distributed import Processes
from basicsr_clsd.runtime.files import write_image

Results = dict[str, dict[str, float]]


@dataclass
class Best:
    """The best validation result so far."""

    value: float
    iteration: int


class Validator:
    """Measures a model on sets; every process takes its share of the images and gets all results.

    Args:
        options: Checked options.
        sets: Data sets by name.
        processes: Who shares the work.
        folder: Where upscaled images go if ``val.save_img`` asks for them.
    """

    def __init__(self, options: Options, sets: dict[str, PairedDataset], processes: Processes, folder: Path) -> None:
        self.options, self.sets, self.processes, self.folder = options, sets, processes, folder
        self.tile: int | None = None  # side in LR pixels, as memory has sufficed for; None: whole images
        self.overlap: int | None = None  # around a tile, once it is known
        self.suffix = ''  # of the names of metrics
        self.examples: dict[str, Image] = {}  # the first image of each set as it was last upscaled

    def run(self, model: SupervisedModel, iteration: int) -> Results:
        """Measure all sets.

        Returns:
            Mean metrics by set; of heads too, as ``METRIC/headJ``, if ``val.heads`` asks for it. Those of a model that
            is given HR images are called ``METRIC/privileged``.
        """
        results, tiles = {}, self._tiles(model)
        for name, dataset in self.sets.items():
            started = time.monotonic()
            self.suffix = '' if model.takes == 'lq' else '/privileged'
            share = range(self.processes.rank, len(dataset), self.processes.world)
            scores = Scores()
            with self.processes.together():
                samples = upscaled(dataset, lambda lq: list(tiles(lq).split(len(lq))), share, model.takes)
                for sample, values in measured(samples, partial(self._measure, dataset=name, iteration=iteration)):
                    scores.images[sample.name] = values
                    if len(scores.images) == 1:
                        self.examples[name] = in_8_bits(sample.outputs[0])
            names = [dataset.name(index) for index in range(len(dataset))]
            results[name] = joined(self.processes.gather(scores), names).mean()
            values = ', '.join(f'{metric}: {value:.4f}' for metric, value in results[name].items())
            logging.getLogger('basicsr').info(
                f'Validation {name}, iter {iteration:,}: {values} ({time.monotonic() - started:.1f} s)'
            )
        self.tile, self.overlap = tiles.tile, tiles.overlap
        return results

    def _tiles(self, model: SupervisedModel) -> Tiles:
        """Upscales a whole image, or tile by tile where memory does not suffice, to (outputs·N, C, H, W)."""

        def outputs(part: Tensor) -> Tensor:
            srs = model.upscale(part, heads=self.options.val.heads)
            return srs[0] if len(srs) == 1 else torch.cat(srs)

        name = self.options.network_g.type
        return Tiles(outputs, model.factor, self.tile, self.overlap, window_of(model.net_g), name)

    def _measure(self, sample: Sample, dataset: str, iteration: int) -> dict[str, float]:
        if self.options.val.save_img:
            write_image(sample.outputs[0], self.folder / dataset / f'{sample.name}_{iteration}.png')
        metrics = self.options.val.metrics
        values = {
            f'{name}{self.suffix}': value for name, value in measure(sample.outputs[0], sample.gt, metrics).items()
        }
        for number, output in enumerate(sample.outputs[1:], start=1):
            values |= {f'{name}/head{number}': value for name, value in measure(output, sample.gt, metrics).items()}
        return values

    def better(self, results: Results, best: Best | None, iteration: int) -> Best | None:
        """The new best if these results beat it by ``val.best``'s set and metric; None if they do not."""
        if not results:
            return None
        choice, metrics = self.options.val.best, self.options.val.metrics
        metric = choice.metric or next(iter(metrics))
        value = results[choice.dataset or next(iter(results))][metric + self.suffix]
        sign = 1 if metrics[metric].better == 'higher' else -1
        if math.isnan(value) or (best is not None and sign * value <= sign * best.value):
            return None
        return Best(value, iteration)
