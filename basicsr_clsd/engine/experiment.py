"""The folder of a run, and the logs in it."""

import importlib
import json
import logging
import platform
import re
import resource
import secrets
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import basicsr
import torch
from basicsr.utils import get_root_logger

from basicsr_clsd import __version__
from basicsr_clsd.config import Options, write_resolved
from basicsr_clsd.config.paths import output_root
from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.runtime.files import check_writable, set_aside, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class LogFileHandler(logging.FileHandler):
    """Log lines into a file. A line that a full disk refuses is lost; the next checkpoint tells, and ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Print no traceback."""


class Experiment:
    """The folders of the run ``options.name``: where they are, and their making.

    Nothing is touched before :meth:`open`, which is called when every check has passed.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.root = output_root(options.path.experiments_root, 'experiments') / options.name
        self.models = self.root / 'models'
        self.states = self.root / 'training_states'
        self.visualization = self.root / 'visualization'
        self.tb = output_root(options.path.tb_root, 'tb_logger') / options.name
        self.log_file = self.root / f'train_{options.name}.log'
        self._metrics_file = self.root / 'metrics.jsonl'

    def check_writable(self) -> None:
        """Raise a :class:`UserError` if the folders could not be made, without making them, or the curves not drawn."""
        for folder in (self.root, self.tb):
            check_writable(folder)
        if self.options.logger.use_tb_logger:
            _tensorboard()

    def open(self, resuming: bool, iteration: int) -> None:
        """Make the folders; a run of the same name that is not resumed is renamed first, never overwritten.

        Args:
            resuming: Go on in the folders that are there.
            iteration: Iteration that the run goes on from; metrics and log lines of later ones are dropped.
        """
        try:
            if not resuming:
                for folder in (self.root, self.tb):
                    aside = set_aside(folder)
                    if aside is not None:
                        get_root_logger().info(f'The earlier run of this name is now {aside}')
            for folder in (self.root, self.models, self.states, self.visualization):
                folder.mkdir(parents=True, exist_ok=True)
            write_resolved(self.options, self.root / f'{self.options.name}.yml')
            self._drop_later_lines(iteration)
        except OSError as error:
            raise UserError(f'{error.filename or self.root}: cannot be written: {error.strerror}') from error

    def _drop_later_lines(self, iteration: int) -> None:
        """Take the lines of later iterations, which will come again, out of metrics and log."""

        def metric_stays(line: str) -> bool:
            try:
                return json.loads(line)['iter'] <= iteration
            except (ValueError, KeyError, TypeError):
                return False  # the line that a kill cut off

        def log_stays(line: str) -> bool:
            of = re.search(r'\b(?:iter|Iteration) ([\d,]+)', line)
            return of is None or int(of[1].replace(',', '')) <= iteration

        for path, stays in ((self._metrics_file, metric_stays), (self.log_file, log_stays)):
            if path.is_file():
                lines = path.read_text(encoding='utf-8', errors='replace').splitlines(keepends=True)
                write_text(''.join(line for line in lines if stays(line)), path)

    def record(self, iteration: int, dataset: str, values: dict[str, float]) -> None:
        """Append validation results to ``metrics.jsonl``, one line per metric."""
        lines = [
            json.dumps({'iter': iteration, 'dataset': dataset, 'metric': metric, 'value': value})
            for metric, value in values.items()
        ]
        with open(self._metrics_file, 'a', encoding='utf-8') as file:
            file.write(''.join(line + '\n' for line in lines))

    def curves(self, iteration: int) -> 'SummaryWriter | None':
        """TensorBoard's writer, which drops what it had after ``iteration``; None if it was not asked for."""
        if not self.options.logger.use_tb_logger:
            return None
        self._open_wandb()
        return _tensorboard().SummaryWriter(str(self.tb), purge_step=iteration + 1)

    def _open_wandb(self) -> None:
        """Let Weights & Biases copy what TensorBoard gets; a resumed run goes on under the ID that it had."""
        section = self.options.logger.wandb
        if section.project is None:
            return
        import wandb  # noqa: PLC0415  (an extra that few runs use)

        file = self.root / 'wandb_id.txt'
        run_id = section.resume_id or (file.read_text(encoding='utf-8') if file.exists() else secrets.token_hex(4))
        write_text(run_id, file)
        wandb.init(
            id=run_id,
            resume='allow',
            project=section.project,
            name=self.options.name,
            config=self.options.as_dict(),
            dir=self.root,
            sync_tensorboard=True,
        )
        get_root_logger().info(f'Weights & Biases: run {run_id} of project {section.project}')


def _tensorboard() -> ModuleType:
    try:
        return importlib.import_module('torch.utils.tensorboard')
    except ImportError as error:
        raise UserError(
            f'logger.use_tb_logger: TensorBoard cannot be imported ({first_line(error)}); '
            'pip install tensorboard, or set it to false'
        ) from error


def add_log_file(path: Path) -> None:
    """Append everything that is logged to a file as well."""
    try:
        handler = LogFileHandler(path, 'a', encoding='utf-8')
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s: %(message)s'))
    get_root_logger().addHandler(handler)


def peak_memory() -> int:
    """Bytes that this process has had at most: of its GPU, or of the machine where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def environment() -> str:
    """One line that says what the run ran on."""
    parts: dict[str, Any] = {
        'basicsr-clsd': __version__,
        'basicsr': basicsr.__version__,
        'torch': torch.__version__,
        'Python': platform.python_version(),
        'threads': torch.get_num_threads(),
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + ' CPU',
    }
    return ', '.join(f'{name} {value}' for name, value in parts.items()) + f'; {" ".join(sys.argv)}'
