"""What the command lines share: common arguments, and how errors end a process."""

import argparse
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from basicsr_clsd.errors import NonFiniteLossError, PeerError, StopRequested, UserError, exit_code, out_of_memory

if TYPE_CHECKING:
    from basicsr_clsd.config import Options
    from basicsr_clsd.runtime.distributed import Processes

INTERRUPTED = 130
LOST_PEER = ('gloo/transport', 'Connection closed by peer', 'NCCL')
FILE_WIDTH = 1000


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common; they keep BasicSR's meaning."""
    parser.add_argument('-opt', required=True, metavar='YAML', help='options file')
    parser.add_argument(
        '--force_yml',
        nargs='+',
        default=[],
        metavar='KEY:KEY=VALUE',
        help='override options, as in train:optim_g:lr=1e-4; values are YAML',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='what started the processes; torchrun is recognised by itself',
    )


def count(text: str) -> int:
    """A whole number that is not negative, of the command line."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def positive(text: str) -> int:
    """A whole number above 0, of the command line."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


class ConsoleHandler(logging.Handler):
    """Log lines above a live progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = 'yellow' if record.levelno >= logging.WARNING else None
        self.console.print(self.format(record), style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def processes(arguments: argparse.Namespace, options: 'Options', console: Console) -> Iterator['Processes']:
    """Join the other processes of the run; one of them speaks."""
    # Imported here so that --help and a mistyped argument need not wait for torch.
    from basicsr_clsd.runtime import device, distributed  # noqa: PLC0415

    gpu = device.training_device(options.num_gpu).type != 'cpu'
    with distributed.processes(arguments.launcher, options.dist_params.timeout, gpu) as joined:
        set_up_console(console, joined.main)
        try:
            yield joined
        except (Exception, KeyboardInterrupt) as error:
            if joined.world == 1:
                raise
            joined.leave(_tell(error))


def set_up_console(console: Console, main: bool = True) -> logging.Logger:
    """Let BasicSR's logger, which its builders use as well, print on this console; but errors, in one process alone."""
    # Imported here so that --help and a mistyped argument need not wait for torch.
    from basicsr.utils.logger import get_root_logger  # noqa: PLC0415

    logger = get_root_logger()
    logger.setLevel(logging.INFO if main else logging.ERROR)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = ConsoleHandler(console)
    handler.setFormatter(logging.Formatter('%(message)s'))
    logger.addHandler(handler)
    return logger


def run(main: Callable[[Console], None]) -> None:
    """Run a command; what ends it is told in one line on stderr.

    Exit code 2: a mistake of the user's. 1: the disk, memory, or a loss that is not finite. 130, 143: SIGINT, SIGTERM.
    """
    # A file or a pipe has no width, and the usual 80 columns would break tables.
    console = Console(soft_wrap=True, emoji=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    try:
        main(console)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(_tell(error))


def _tell(error: BaseException) -> int:
    """Tell what ended the command, and return its exit code. What is expected has one line, all else its traceback."""
    if isinstance(error, PeerError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        _print('interrupted')
        return INTERRUPTED
    if isinstance(error, StopRequested | UserError | OSError | NonFiniteLossError):
        _print(str(error))
    elif isinstance(error, RuntimeError | MemoryError) and out_of_memory(error):
        _print(
            'out of memory; for a training, lower datasets.train.batch_size_per_gpu (with train.accum_iter the '
            'global batch stays) or gt_size, or set train.precision: bf16'
        )
    elif isinstance(error, RuntimeError) and any(text in str(error) for text in LOST_PEER):
        _print(f'another process of the run has ended or does not answer: {str(error).splitlines()[0]}')
    else:
        traceback.print_exception(error)
    return exit_code(error)


def _print(message: str) -> None:
    """Write one line to standard error, and to the log if there is one."""
    lines = message.strip().splitlines()
    if 'Traceback (most recent call last)' in message:
        # A loader process's error arrives with its traceback before it; the last line is the message.
        lines = [lines[-1].removeprefix(f'{UserError.__module__}.{UserError.__name__}: ')]
    line = ' '.join(lines)
    for handler in logging.getLogger('basicsr').handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logging.makeLogRecord({'levelno': logging.ERROR, 'levelname': 'ERROR', 'msg': line}))
    sys.stderr.write(f'error: {line}\n')
