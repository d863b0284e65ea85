"""Train and test a set of options files with several seeds: ``python scripts/ablate.py SET.yml --seeds 0 1 2``.

Ends with tables and a report in results/NAME_OF_THE_SET. Interrupted or killed, the same command goes on: what is
finished is not done again, and a training goes on from its last state. Exit code 0: all done. 1: a run failed (the
others are done all the same), or the disk. 2: a mistake in what was given. 130, 143: SIGINT, SIGTERM.
"""

import argparse
import sys
from pathlib import Path

from basicsr_clsd import cli
from basicsr_clsd.errors import FAILURE, UserError

OF_A_JOB = ('partition', 'time', 'cpus_per_task', 'gpus_per_task')


def ablate(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Plan, run, and sum up."""
    # Imported here so that --help and a mistyped argument need not wait for torch.
    from basicsr_clsd.ablation.cluster import ClusterRuns, slurm  # noqa: PLC0415
    from basicsr_clsd.ablation.plan import plan, read_set  # noqa: PLC0415
    from basicsr_clsd.ablation.runs import ANY, Runs  # noqa: PLC0415
    from basicsr_clsd.ablation.summary import summarize  # noqa: PLC0415
    from basicsr_clsd.config.paths import options_file  # noqa: PLC0415
    from basicsr_clsd.runtime.files import check_writable  # noqa: PLC0415
    from basicsr_clsd.runtime.locks import exclusive  # noqa: PLC0415

    on_cluster = arguments.executor == 'slurm'
    wanted = {name: getattr(arguments, name) for name in OF_A_JOB}
    if on_cluster and arguments.devices:
        raise UserError('--devices is for --executor local; Slurm gives each run its own')
    if not on_cluster and any(value is not None for value in wanted.values()):
        name = next(name for name, value in wanted.items() if value is not None)
        raise UserError(f'--{name.replace("_", "-")} is for --executor slurm')
    file = options_file(arguments.set)
    chosen = read_set(file)
    jobs = plan(file, list(dict.fromkeys(arguments.seeds)), arguments.force_yml, arguments.force_test)
    if arguments.dry_run:
        for job in jobs:
            left = ' and '.join(what for what, _ in job.commands()) or 'nothing'
            console.print(f'{job.name}: {left} to do', markup=False, highlight=False)
        return
    folder = jobs[0].results.with_name(chosen.name)
    check_writable(folder)
    executor = slurm(folder / 'slurm', **wanted) if on_cluster else None
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / '.lock', folder, 'is at work on this'):
        if executor is None:
            runs = Runs(jobs, arguments.devices or [ANY], console)
        else:
            runs = ClusterRuns(jobs, executor, console)
        runs.run()
        if runs.stopped_by is not None:
            console.print('Stopped; the same command goes on.')
            sys.exit(128 + runs.stopped_by)
        finished = [job for job in jobs if job.name not in runs.failed]
        if finished:
            summarize(finished, chosen, folder, console)
    for name, message in runs.failed.items():
        sys.stderr.write(f'error: {name}: {message}\n')
    if runs.failed:
        sys.exit(FAILURE)


def main() -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('set', type=Path, metavar='SET', help='as options/ablation/table5.yml, a shipped one')
    parser.add_argument('--seeds', type=cli.count, nargs='+', default=[0], help='of each training (default: 0)')
    parser.add_argument(
        '--devices', nargs='+', metavar='DEVICE', help="one run at a time on each: numbers of GPUs, or 'cpu'"
    )
    parser.add_argument('--executor', choices=['local', 'slurm'], default='local', help='who runs (default: local)')
    parser.add_argument('--partition', help='of the Slurm cluster')
    parser.add_argument(
        '--time', type=cli.positive, metavar='MINUTES', help="a Slurm job's limit; it then goes on anew"
    )
    parser.add_argument('--cpus-per-task', type=cli.positive, metavar='N', help='CPU cores of a Slurm job')
    parser.add_argument('--gpus-per-task', type=cli.positive, metavar='N', help='GPUs of a Slurm job')
    override = 'KEY:KEY=VALUE'
    parser.add_argument('--force_yml', nargs='+', default=[], metavar=override, help='overrides for all trainings')
    parser.add_argument('--force_test', nargs='+', default=[], metavar=override, help='overrides for all tests')
    parser.add_argument('--dry-run', action='store_true', help='check everything, and list what there is to do')
    parsed = parser.parse_args()
    cli.run(lambda console: ablate(parsed, console))
