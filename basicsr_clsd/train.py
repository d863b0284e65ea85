"""Train a network: ``python basicsr_clsd/train.py -opt options/train_CLSD_x4.yml``."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from basicsr_clsd.config import Options

if not __package__:  # run as a file: import this checkout's package, and nothing by the bare names of its modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr_clsd import cli

DEBUG_OVERRIDES = ('train:total_iter=8', 'val:val_freq=8', 'logger:print_freq=1', 'logger:use_tb_logger=false')


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Train a super-resolution network.')
    cli.add_common_arguments(parser)
    parser.add_argument('--auto_resume', action='store_true', help='go on from the newest state of this run, if any')
    parser.add_argument('--debug', action='store_true', help='8 iterations, every one logged, as NAME_debug')
    return parser.parse_args()


def train(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Load and check the options, build the run, train."""
    # Imported here so that --help and a mistyped argument need not wait for torch.
    from basicsr_clsd.config import check, load  # noqa: PLC0415
    from basicsr_clsd.engine.experiment import Experiment  # noqa: PLC0415
    from basicsr_clsd.engine.trainer import Trainer  # noqa: PLC0415
    from basicsr_clsd.runtime.locks import held  # noqa: PLC0415

    cli.set_up_console(console)
    options = load(arguments.opt, arguments.force_yml)
    if arguments.debug:
        options = shortened(options, load(arguments.opt, [*arguments.force_yml, *DEBUG_OVERRIDES]))
    check(options)
    # torchrun starts the processes of a run again when one of them was killed; each machine counts for itself.
    restarted = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')) > 0
    with cli.processes(arguments, options, console) as processes, held(Experiment(options).root, processes):
        resume = any(processes.gather(arguments.auto_resume or restarted))
        with processes.together():
            trainer = Trainer(options, console, processes, resume)
        trainer.run()


def shortened(whole: 'Options', options: 'Options') -> 'Options':
    """The options of ``--debug``, with the schedules of the losses as short as the run."""
    options.name += '_debug'
    if whole.train is not None and options.train is not None:
        for loss in options.train.losses().values():
            if loss.schedule is not None:
                loss.schedule.shorten(options.train.total_iter / whole.train.total_iter)
    return options


def main() -> None:
    """Parse the command line, and run."""
    arguments = parse()
    cli.run(lambda console: train(arguments, console))


if __name__ == '__main__':
    main()
