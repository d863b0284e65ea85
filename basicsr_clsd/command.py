"""What the command lines share: common arguments, and how errors end a process."""

import argparse
import logging
import os
import sys
from collections.abc import Callable

from rich.console import Console

from basicsr_clsd.errors import NonFiniteLossError, UserError

USER_MISTAKE = 2
FAILURE = 1
INTERRUPTED = 130
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
        '--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='several processes: not yet supported'
    )


def refuse_launcher(arguments: argparse.Namespace) -> None:
    """Raise a :class:`UserError` where several processes were asked for: each would do the whole, in one folder."""
    if arguments.launcher != 'none':
        raise UserError(f'--launcher {arguments.launcher}: several processes are not yet supported; leave it out')
    if os.environ.get('WORLD_SIZE', '1') != '1':
        raise UserError('WORLD_SIZE: several processes are not yet supported; start one, without torchrun')


def run(main: Callable[[Console], None]) -> None:
    """Run a command: a user's mistake ends in one line on stderr and exit code 2, an error of the disk in 1."""
    # A file or a pipe has no width, and the usual 80 columns would break tables.
    console = Console(soft_wrap=True, emoji=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    try:
        main(console)
    except UserError as error:
        _end(str(error), USER_MISTAKE)
    except (OSError, NonFiniteLossError) as error:
        _end(str(error), FAILURE)
    except KeyboardInterrupt:
        _end('interrupted', INTERRUPTED)


def _end(message: str, code: int) -> None:
    lines = message.strip().splitlines() or ['']
    if 'Traceback (most recent call last)' in message:
        # A loader process's error arrives with its traceback before it; the last line is the message.
        lines = [lines[-1].removeprefix(f'{UserError.__module__}.{UserError.__name__}: ')]
    line = ' '.join(lines)
    for handler in logging.getLogger('basicsr').handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logging.makeLogRecord({'levelno': logging.ERROR, 'levelname': 'ERROR', 'msg': line}))
    sys.stderr.write(f'error: {line}\n')
    sys.exit(code)
