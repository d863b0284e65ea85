"""Test networks on benchmark sets: ``python basicsr_clsd/test.py -opt options/test_x2.yml``."""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: import this checkout's package, and nothing by the bare names of its modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr_clsd import cli


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Measure super-resolution networks on benchmark sets.')
    cli.add_common_arguments(parser)
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        default=[],
        metavar='[NAME=]MODEL',
        help='what to test, a row each, in place of what the options name; a file, or a name in the model zoo',
    )
    parser.add_argument(
        '--precision',
        choices=['fp32', 'tf32', 'bf16'],
        default='fp32',
        help='that of infer.py; tf32: of convolutions, on a GPU that has it (default: %(default)s)',
    )
    return parser.parse_args()


def test(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Load and check the options, the weights and the data, and measure."""
    # Imported here so that --help and a mistyped argument need not wait for torch.
    from basicsr_clsd.config import check, load  # noqa: PLC0415
    from basicsr_clsd.config.paths import output_root  # noqa: PLC0415
    from basicsr_clsd.engine.build import build_dataset  # noqa: PLC0415
    from basicsr_clsd.errors import UserError  # noqa: PLC0415
    from basicsr_clsd.evaluation.benchmark import Benchmark  # noqa: PLC0415
    from basicsr_clsd.evaluation.evaluated import load_models, named_checkpoints  # noqa: PLC0415
    from basicsr_clsd.runtime.locks import held  # noqa: PLC0415

    cli.set_up_console(console)
    options = load(arguments.opt, arguments.force_yml)
    options.train = None
    if arguments.checkpoints:
        options.networks = named_checkpoints(arguments.checkpoints)
    check(options, testing=True)
    if options.path.pretrain_network_g is None and not options.networks:
        raise UserError(f'{arguments.opt}: path.pretrain_network_g: missing; testing needs weights')
    results = output_root(options.path.results_root, 'results') / options.name
    with cli.processes(arguments, options, console) as processes, held(results, processes):
        with processes.together():
            methods = load_models(options, arguments.precision)
            sets = processes.main_first(
                lambda: {
                    str(section.name): build_dataset(options, section, 'test')
                    for _, section in options.sets('test', 'val')
                }
            )
            benchmark = Benchmark(options, methods, sets, processes)
        benchmark.run(console)
        if processes.main:
            console.print(f'Tables and per-image values: {benchmark.folder}', markup=False)


def main() -> None:
    """Parse the command line, and run."""
    arguments = parse()
    cli.run(lambda console: test(arguments, console))


if __name__ == '__main__':
    main()
