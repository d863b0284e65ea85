"""The folder of a run, and what it ran on."""

import importlib
import platform
import secrets
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from types import ModuleType
from typing import TYPE_CHECKING

import basicsr
import torch
from basicsr.utils import get_root_logger

from basicsr_clsd import __version__
from basicsr_clsd.config import Options, write_resolved
from basicsr_clsd.config.paths import output_root
from basicsr_clsd.engine.records import FILE, Row, StartRow, append_rows, drop_later_rows
from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.runtime.files import check_writable, set_aside, write_text
from basicsr_clsd.runtime.hardware import processor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        self._metrics_file = self.root / FILE

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
            iteration: Iteration that the run goes on from; rows of later ones in ``metrics.jsonl`` are dropped.
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
            drop_later_rows(self._metrics_file, iteration)
        except OSError as error:
            raise UserError(f'{error.filename or self.root}: cannot be written: {error.strerror}') from error

    def record(self, rows: Sequence[Row]) -> None:
        """Append rows to ``metrics.jsonl``."""
        append_rows(rows, self._metrics_file)

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


def start_row(iteration: int, device: torch.device, processes: int) -> StartRow:
    """What this start of a run runs on, and its command line."""
    return StartRow(
        iter=iteration,
        time=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        versions={
            'basicsr-clsd': __version__,
            'basicsr': basicsr.__version__,
            'torch': torch.__version__,
            'Python': platform.python_version(),
        },
        device=processor(device),
        threads=torch.get_num_threads(),
        processes=processes,
        host=platform.node(),
        command=sys.argv,
    )
