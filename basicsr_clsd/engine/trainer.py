"""The training loop."""

import logging
import random
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from basicsr_clsd.config import Options
from basicsr_clsd.data.paired_dataset import check_decodable
from basicsr_clsd.engine.advice import advice
from basicsr_clsd.engine.build import build_dataset, build_loader, build_model
from basicsr_clsd.engine.checkpoint import (
    VERSION,
    States,
    changed_options,
    random_state,
    read_state,
    seed_everything,
    set_random_state,
)
from basicsr_clsd.engine.curves import Curves
from basicsr_clsd.engine.experiment import Experiment, start_row
from basicsr_clsd.engine.logging import Meter, TrainingProgress, add_log_file
from basicsr_clsd.engine.records import validation_rows
from basicsr_clsd.engine.signals import Signals
from basicsr_clsd.engine.validation import Best, Results, Validator
from basicsr_clsd.errors import SIGNALLED, NonFiniteLossError, PeerError, StopRequested
from basicsr_clsd.runtime import cudnn
from basicsr_clsd.runtime.distributed import Answer, Processes
from basicsr_clsd.runtime.files import save
from basicsr_clsd.runtime.memory import keep_freed_memory

Batch = dict[str, Any]


class Trainer:
    """A training run: everything that can fail for a user's mistake does so while it is built.

    Args:
        options: Checked options with ``train``; a ``manual_seed`` that is not set is drawn, or that of the state.
        console: Where to show progress.
        processes: Who trains together.
        auto_resume: Go on from the newest readable state of the run of this name, if there is one.

    Raises:
        UserError: Data, weights, states or folders are not as they should be.
    """

    def __init__(self, options: Options, console: Console, processes: Processes, auto_resume: bool = False) -> None:
        assert options.train is not None
        self.options, self.train = options, options.train
        self.console, self.processes = console, processes
        self.logger = logging.getLogger('basicsr')
        self.experiment = Experiment(options)
        self.experiment.check_writable()
        self.states = States(self.experiment.states, options.logger.keep_states)
        self.resuming, state = self._find_state(auto_resume)
        assert options.manual_seed is not None
        self.seed = options.manual_seed
        self.iteration: int = 0 if state is None else state['iter']
        self.best: Best | None = None
        self.last: Results = {}
        self.meter = Meter()
        processes.main_first(self._open_data)
        seed_everything(self.seed)
        train = self.train
        cudnn.set_up(tf32=train.tf32, deterministic=train.deterministic, benchmark=train.cudnn_benchmark)
        self.model = build_model(options)
        if self.model.device.type == 'cpu':
            keep_freed_memory()
        if processes.rank:  # processes start from the same weights, but draw what layers drop each for themselves
            seed_everything(self.seed + processes.rank)
        if state is not None:
            self.model.load_training_state(state['model'])
            if processes.rank < len(state['random']):
                set_random_state(state['random'][processes.rank])
            self.best = Best(**state['best']) if state['best'] else None
            meters = state.get('meters', [])  # states of earlier versions have none
            if processes.rank < len(meters):
                self.meter.load_state(meters[processes.rank])
        self.curves = Curves()  # which the main process opens when the run begins

    def _find_state(self, auto_resume: bool) -> tuple[bool, dict[str, Any] | None]:
        """Whether to go on in the run's folders, and the state to start from."""
        path = self.options.path.resume_state
        state = self.states.newest() if auto_resume else None
        if state is None and path is not None:
            state = read_state(Path(path))
        if self.options.manual_seed is None:
            drawn = self.processes.gather(random.SystemRandom().randint(1, 2**31))[0]
            self.options.manual_seed = drawn if state is None else state['options']['manual_seed']
        if state is not None:
            for change in changed_options(state['options'], self.options, state['world'], self.processes.world):
                self.logger.warning(f'Changed since the state was saved: {change}')
        return auto_resume or state is not None, state

    def _open_data(self) -> None:
        options, processes = self.options, self.processes
        section = options.datasets['train']
        self.train_set = build_dataset(options, section, 'train')
        sets = {str(section.name): build_dataset(options, section, 'val') for _, section in options.sets('val')}
        for dataset in sets.values():
            check_decodable(dataset)
        self.validator = Validator(options, sets, processes, self.experiment.visualization)
        self.global_batch = section.batch_size_per_gpu * processes.world * self.train.accum_iter
        self.epoch_length = len(self.train_set) * section.dataset_enlarge_ratio
        self.loader = build_loader(options, self.train_set, self.seed, processes, self.iteration)

    def run(self) -> None:
        """Train to ``train.total_iter``; of a run that had ended before, only the last weights are written again.

        Raises:
            OSError: A checkpoint could not be written; the run stops, older ones are intact.
            NonFiniteLossError: ``train.max_skipped_steps`` steps in a row were skipped.
            StopRequested: SIGINT or SIGTERM came; the iteration was finished and the state saved.
        """
        started = time.monotonic()
        with self.processes.together():
            if self.processes.main:
                self.experiment.open(self.resuming, self.iteration)
                add_log_file(self.experiment.log_file)
                self.curves = self.experiment.curves(self.iteration)
        self._log_start()
        console = self.console if self.processes.main else None
        try:
            with (
                closing(self._iterations()) as iterations,
                Signals() as signals,
                TrainingProgress(console, self.iteration, self.train.total_iter, self.model.device) as bar,
            ):
                batches, answer = self._next(iterations, signals)
                self._heed(answer)
                while batches is not None:
                    # Asked before an iteration and heard after it, so that no process waits for an answer.
                    following, answer = self._next(iterations, signals)
                    self._iterate(batches, bar)
                    self._heed(answer)
                    batches = following
            self._save_weights('latest')
        finally:
            self.curves.close()
        self._log_end(time.monotonic() - started)

    def _iterations(self) -> Generator[list[Batch], None, None]:
        """The micro-batches of each iteration, and the time waited for them; to be closed, for the loader to end."""
        batches: list[Batch] = []
        self.waited, asked = 0.0, time.monotonic()
        try:
            for batch in self.loader:
                self.waited += time.monotonic() - asked
                batches.append(batch)
                if len(batches) == self.train.accum_iter:
                    yield batches
                    batches = []
                asked = time.monotonic()
        except Exception as error:
            raise error.with_traceback(None) from None  # the traceback would keep the loader alive

    def _next(self, iterations: Iterator[list[Batch]], signals: Signals) -> tuple[list[Batch] | None, Answer]:
        """The next iteration's micro-batches, and what will say whether all processes have theirs and go on."""
        batches, failed = None, signals.request()
        try:
            batches = next(iterations, None)
        except Exception as error:
            failed = failed or error
        return batches, self.processes.ask(failed)

    def _heed(self, answer: Answer) -> None:
        """Go on if all processes do; if one was asked to stop, save first."""
        try:
            answer()
        except (StopRequested, PeerError) as end:
            saved = self.iteration % self.options.logger.save_checkpoint_freq == 0
            if end.exit_code > SIGNALLED and not saved and self.iteration < self.train.total_iter:
                self._checkpoint()
            raise

    def _iterate(self, batches: list[Batch], bar: TrainingProgress) -> None:
        options, model = self.options, self.model
        self.iteration += 1
        model.update_learning_rate(self.iteration, self.train.warmup_iter)
        files: list[str] = []
        for part, batch in enumerate(batches):
            model.feed_data(batch)
            files += model.files
            model.accumulate_gradients(self.iteration, part, len(batches))
        model.step()
        self.meter.add(self.iteration, model.log_dict, files)
        bar.step(self.iteration)
        last = self.iteration == self.train.total_iter
        saves = last or self.iteration % options.logger.save_checkpoint_freq == 0
        if saves or self.iteration % options.logger.print_freq == 0:
            self._log(bar)
        if last or (options.val.val_freq and self.iteration % options.val.val_freq == 0):
            self._validate()
            firsts = {name: next(iter(values.items())) for name, values in self.last.items()}
            bar.validation = ' '.join(f'{name} {first} {value:.2f}' for name, (first, value) in firsts.items())
        if saves:
            self._checkpoint()

    def _log(self, bar: TrainingProgress) -> None:
        """Log what the meter has seen; stop if too many steps were skipped."""
        reading = self.meter.read()
        skipped = [line for lines in self.processes.gather(reading.skipped) for line in lines]
        for line in skipped:
            self.logger.warning(line)
        parts = self.processes.gather(reading.means)
        means = {name: sum(part[name] for part in parts) / len(parts) for name in reading.means}
        rate = self.model.get_current_learning_rate()[0]
        epoch = self.iteration * self.global_batch // self.epoch_length
        row = bar.log(self.iteration, epoch, rate, means, self.waited)
        self.waited = 0.0
        with self.processes.together():
            if self.processes.main:
                self.experiment.record([row])
            timing = {'it/s': row.it_per_s, 'data_wait': row.data_wait, 'memory_GiB': row.memory_gib}
            self.curves.scalars('train', {**row.values, 'lr': row.lr, **timing}, self.iteration)
            most = self.train.max_skipped_steps
            if reading.in_a_row >= most:
                raise NonFiniteLossError(
                    f'{reading.in_a_row} steps in a row were skipped (train.max_skipped_steps: {most}), the '
                    f'last at iteration {self.iteration}; the last good state is in {self.experiment.states}'
                )

    def _validate(self) -> None:
        """Measure every validation set, record the results, and keep the weights if they are the best."""
        self.last = self.validator.run(self.model, self.iteration)
        with self.processes.together():
            if self.processes.main:
                self.experiment.record(validation_rows(self.iteration, self.last))
            for name, values in self.last.items():
                self.curves.scalars(f'val/{name}', values, self.iteration)
            for name, image in self.validator.examples.items():
                self.curves.image(f'val/{name}', image, self.iteration)
        better = self.validator.better(self.last, self.best, self.iteration)
        if better is not None:
            self.best = better
            self._save_weights('best')

    def _checkpoint(self) -> None:
        self._save_weights(str(self.iteration))
        random_states, meters = zip(*self.processes.gather((random_state(), self.meter.state())), strict=True)
        with self.processes.together():
            if self.processes.main:
                self.states.save(
                    {
                        'version': VERSION,
                        'iter': self.iteration,
                        'model': self.model.training_state(),
                        'random': list(random_states),
                        'meters': list(meters),
                        'best': vars(self.best) if self.best else None,
                        'options': self.options.model_dump(mode='json'),
                        'world': self.processes.world,
                    }
                )

    def _save_weights(self, label: str) -> None:
        with self.processes.together():
            if self.processes.main:
                for name, weights in self.model.weights().items():
                    save(weights, self.experiment.models / f'{name}_{label}.pth')

    def _log_start(self) -> None:
        parts = [f'{self.options.datasets["train"].batch_size_per_gpu} images']
        parts += [f'{self.processes.world} processes'] if self.processes.world > 1 else []
        parts += [f'{self.train.accum_iter} micro-batches'] if self.train.accum_iter > 1 else []
        start = start_row(self.iteration, self.train, self.model.device, self.processes.world)
        with self.processes.together():
            if self.processes.main:
                self.experiment.record([start])
        if self.iteration:
            self.logger.info(f'Resumed from iteration {self.iteration:,}')
        self.logger.info(start.text())
        for line in advice(self.train, self.train_set, self.model.device):
            self.logger.warning(line)
        for line in self.model.loaded if not self.iteration else ():  # a state has replaced it
            self.logger.info(line)
        self.logger.info(
            f'{self.options.name}: {self.model.describe()}; {len(self.train_set):,} training images; '
            f'global batch {self.global_batch}'
            + (f' = {" x ".join(parts)}' if len(parts) > 1 else '')
            + f'; seed {self.seed}; iterations {self.iteration:,} to {self.train.total_iter:,}'
        )

    def _log_end(self, seconds: float) -> None:
        for name, values in self.last.items():
            shown = ', '.join(f'{metric} {value:.4f}' for metric, value in values.items())
            self.logger.info(f'Last  {name}: {shown}')
        if self.best is not None:
            self.logger.info(f'Best  {self.best.value:.4f} at iteration {self.best.iteration:,} (net_g_best.pth)')
        self.logger.info(
            f'Training ended at iteration {self.iteration:,} after {timedelta(seconds=round(seconds))}; '
            f'everything is in {self.experiment.root}'
        )
