"""The training loop."""

import logging
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.data import DataLoader

from basicsr_clsd.config import Options
from basicsr_clsd.data.paired_dataset import check_decodable
from basicsr_clsd.data.positions import PositionBatchSampler, SeededDataset
from basicsr_clsd.engine.build import build_dataset, build_model
from basicsr_clsd.engine.checkpoint import (
    VERSION,
    States,
    random_state,
    read_state,
    seed_everything,
    set_random_state,
)
from basicsr_clsd.engine.experiment import Experiment, add_log_file, environment
from basicsr_clsd.engine.progress import TrainingProgress
from basicsr_clsd.engine.resume import refuse_changes
from basicsr_clsd.evaluation.evaluate import Scores, measure, upscaled
from basicsr_clsd.files import save, write_image


@dataclass
class Best:
    """The best validation result so far."""

    value: float
    iteration: int


class Trainer:
    """A training run: everything that can fail for a user's mistake does so while it is built.

    Args:
        options: Checked options with ``train``; a ``manual_seed`` that is not set is drawn, or that of the state.
        console: Where to show progress.
        auto_resume: Go on from the newest readable state of the run of this name, if there is one.

    Raises:
        UserError: Data, weights, states or folders are not as they should be.
    """

    def __init__(self, options: Options, console: Console, auto_resume: bool = False) -> None:
        assert options.train is not None
        self.options, self.console = options, console
        self.total = options.train.total_iter
        self.logger = logging.getLogger('basicsr')
        self.experiment = Experiment(options)
        self.experiment.check_writable()
        self.states = States(self.experiment.states, options.logger.keep_states)
        self.resuming, state = self._find_state(auto_resume)
        assert options.manual_seed is not None
        self.iteration: int = 0 if state is None else state['iter']
        self.best: Best | None = None
        self._open_data()
        seed_everything(options.manual_seed)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        self.model = build_model(options)
        if state is not None:
            self.model.load_training_state(state['model'])
            set_random_state(state['random'])
            self.best = Best(**state['best']) if state['best'] else None

    def _find_state(self, auto_resume: bool) -> tuple[bool, dict[str, Any] | None]:
        """Whether to go on in the run's folders, and the state to start from."""
        path = self.options.path.resume_state
        state = self.states.newest() if auto_resume else None
        if state is None and path is not None:
            state = read_state(Path(path))
        if self.options.manual_seed is None:
            drawn = random.SystemRandom().randint(1, 2**31)
            self.options.manual_seed = drawn if state is None else state['options']['manual_seed']
        if state is not None:
            refuse_changes(state['options'], self.options)
        return auto_resume or state is not None, state

    def _open_data(self) -> None:
        options = self.options
        section = options.datasets['train']
        self.train_set = build_dataset(options, section, 'train')
        self.val_sets = {
            str(section.name): build_dataset(options, section, 'val') for _, section in options.sets('val')
        }
        for dataset in self.val_sets.values():
            check_decodable(dataset)
        self.epoch_length = len(self.train_set) * section.dataset_enlarge_ratio
        assert options.manual_seed is not None
        sampler = PositionBatchSampler(
            images=len(self.train_set),
            enlarge=section.dataset_enlarge_ratio,
            batch_size=section.batch_size_per_gpu,
            first=self.iteration,
            last=self.total,
            seed=options.manual_seed,
        )
        self.loader = DataLoader(
            SeededDataset(self.train_set, options.manual_seed),
            batch_sampler=sampler,
            num_workers=section.num_worker_per_gpu,
            pin_memory=section.pin_memory and torch.cuda.is_available(),
            # Its own generator: the loader must not draw from the one whose state is checkpointed.
            generator=torch.Generator().manual_seed(options.manual_seed),
        )

    def run(self) -> None:
        """Train to ``train.total_iter``; of a run that had ended before, only the last weights are written again.

        Raises:
            OSError: A checkpoint could not be written; the run stops, older ones are intact.
            NonFiniteLossError: A loss term became NaN or infinite.
        """
        self.experiment.open(self.resuming, self.iteration)
        add_log_file(self.experiment.log_file)
        self._log_start()
        self.curves = self.experiment.curves(self.iteration)
        try:
            with TrainingProgress(self.console, self.iteration, self.total) as progress:
                for batch in self.loader:
                    self._iterate(batch, progress)
            self._save_weights('latest')
        finally:
            if self.curves is not None:
                self.curves.close()
        self.logger.info(f'Training ended at iteration {self.iteration:,}; everything is in {self.experiment.root}')

    def _iterate(self, batch: dict[str, Any], progress: TrainingProgress) -> None:
        options, model = self.options, self.model
        assert options.train is not None
        self.iteration += 1
        model.update_learning_rate(self.iteration, options.train.warmup_iter)
        model.feed_data(batch)
        model.optimize_parameters(self.iteration)
        progress.step(self.iteration, model.log_dict)
        if self.iteration % options.logger.print_freq == 0:
            epoch = self.iteration * options.datasets['train'].batch_size_per_gpu // self.epoch_length
            rate = model.get_current_learning_rate()[0]
            self._draw({**progress.log_line(self.iteration, epoch, rate), 'lr': rate}, 'train')
        last = self.iteration == self.total
        if last or (options.val.val_freq and self.iteration % options.val.val_freq == 0):
            results = self._validate()
            first = next(iter(options.val.metrics))
            progress.validation = ' '.join(f'{name} {first} {values[first]:.2f}' for name, values in results.items())
        if last or self.iteration % options.logger.save_checkpoint_freq == 0:
            self._checkpoint()

    def _validate(self) -> dict[str, dict[str, float]]:
        """Measure every validation set, log and record it, and keep the weights if they are the best."""
        options = self.options
        results = {}
        for name, dataset in self.val_sets.items():
            started = time.monotonic()
            scores = Scores()
            for sample in upscaled(dataset, lambda lq: self.model.upscale(lq, heads=options.val.heads)):
                values = measure(sample.outputs[0], sample.gt, options.val.metrics)
                for number, output in enumerate(sample.outputs[1:], start=1):
                    head_values = measure(output, sample.gt, options.val.metrics)
                    values |= {f'{metric}/head{number}': value for metric, value in head_values.items()}
                scores.images[sample.name] = values
                if options.val.save_img:
                    folder = self.experiment.visualization / name
                    write_image(sample.outputs[0], folder / f'{sample.name}_{self.iteration}.png')
            results[name] = scores.mean()
            self.experiment.record(self.iteration, name, results[name])
            self._draw(results[name], f'val/{name}')
            values = ', '.join(f'{metric}: {value:.4f}' for metric, value in results[name].items())
            self.logger.info(
                f'Validation {name}, iter {self.iteration:,}: {values} ({time.monotonic() - started:.1f} s)'
            )
        self._keep_best(results)
        return results

    def _keep_best(self, results: dict[str, dict[str, float]]) -> None:
        if not results:
            return
        choice, metrics = self.options.val.best, self.options.val.metrics
        metric = choice.metric or next(iter(metrics))
        value = results[choice.dataset or next(iter(results))][metric]
        sign = 1 if metrics[metric].better == 'higher' else -1
        if not math.isnan(value) and (self.best is None or sign * value > sign * self.best.value):
            self.best = Best(value, self.iteration)
            self._save_weights('best')

    def _checkpoint(self) -> None:
        self._save_weights(str(self.iteration))
        self.states.save(
            {
                'version': VERSION,
                'iter': self.iteration,
                'model': self.model.training_state(),
                'random': random_state(),
                'best': vars(self.best) if self.best else None,
                'options': self.options.model_dump(mode='json'),
            }
        )

    def _save_weights(self, label: str) -> None:
        save(self.model.student_weights(), self.experiment.models / f'net_g_{label}.pth')

    def _draw(self, values: dict[str, float], group: str) -> None:
        if self.curves is not None:
            for name, value in values.items():
                self.curves.add_scalar(f'{group}/{name}', value, self.iteration)

    def _log_start(self) -> None:
        network = self.model.get_bare_model(self.model.net_g)
        count = sum(parameter.numel() for parameter in network.parameters())
        student = sum(value.numel() for value in self.model.student_weights()['params'].values())
        self.logger.info(environment())
        self.logger.info(
            f'{self.options.name}: {self.options.network_g.type}, {student:,} parameters'
            + (f' and {count - student:,} in heads' if count != student else '')
            + f'; {len(self.train_set):,} training images; seed {self.options.manual_seed}; '
            f'iterations {self.iteration:,} to {self.total:,}'
        )
