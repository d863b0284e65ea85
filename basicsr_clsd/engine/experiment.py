"""The folder of a run, and what it ran on."""

import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone

import basicsr
import torch
from basicsr.utils import get_root_logger

from basicsr_clsd import __version__
from basicsr_clsd.config import Options, write_resolved
from basicsr_clsd.config.paths import output_root
from basicsr_clsd.config.training import Train
from basicsr_clsd.engine.curves import Curves, check_curves, open_curves
from basicsr_clsd.engine.records import FILE, Row, StartRow, append_rows, drop_later_rows
from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.files import check_writable, set_aside
from basicsr_clsd.runtime.hardware import processor


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
        check_curves(self.options)

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

    def curves(self, iteration: int) -> Curves:
        """What draws the run's curves, which go on after ``iteration``."""
        return open_curves(self.options, self.tb, self.root, iteration)


def start_row(iteration: int, train: Train, device: torch.device, processes: int) -> StartRow:
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
        precision=train.precision,
        precision_reason=train.precision_reason,
        channels_last=train.channels_last,
        tf32=train.tf32,
        deterministic=train.deterministic,
        cudnn_benchmark=train.cudnn_benchmark,
        threads=torch.get_num_threads(),
        processes=processes,
        host=platform.node(),
        command=sys.argv,
    )
