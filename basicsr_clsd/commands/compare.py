"""Compare methods, over scales and seeds: ``python scripts/compare.py results/* --paper``.

Each RESULTS is a folder that ``test.py`` wrote, or METHOD=FOLDER to call the method something else. Tests of one method
at one scale are its seeds. Exit code 0: done. 1: the disk failed. 2: a mistake in what was given.
"""

import argparse
from pathlib import Path

from basicsr_clsd import cli


def compare_results(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Read, compare, print and write."""
    # Imported here so that --help and a mistyped argument need not wait.
    from basicsr_clsd.evaluation.results import read_all  # noqa: PLC0415
    from basicsr_clsd.reporting.comparison import compare  # noqa: PLC0415
    from basicsr_clsd.reporting.tables import print_tables, write_tables  # noqa: PLC0415
    from basicsr_clsd.runtime.files import check_writable  # noqa: PLC0415

    tables = compare(read_all(arguments.results), arguments.baseline, arguments.paper, arguments.metrics)
    if arguments.output:
        check_writable(arguments.output)
    print_tables(tables, console)
    if arguments.output:
        write_tables(tables, arguments.output)
        console.print(f'Markdown, LaTeX and CSV: {arguments.output}', markup=False)


def main() -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', nargs='+', metavar='RESULTS', help='results/NAME, or METHOD=results/NAME')
    parser.add_argument('--paper', action='store_true', help="put the paper's numbers beside, and make its Table 5")
    parser.add_argument('--baseline', metavar='METHOD', help='what differences are to (default: EDSR)')
    parser.add_argument('--metrics', nargs='+', metavar='METRIC', help='default: all that all results have')
    parser.add_argument('-o', '--output', type=Path, metavar='DIR', help='write comparison.md, .tex and .csv there')
    parsed = parser.parse_args()
    cli.run(lambda console: compare_results(parsed, console))
