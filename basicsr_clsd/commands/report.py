"""Make a report, one HTML file that needs no network: ``python scripts/report.py results/* -o report.html``.

Each SOURCE is a folder of a test (``results/NAME``, or METHOD=results/NAME to call the method something else) or of a
training (``experiments/NAME``). Tests run with ``val:save_img=true`` bring their images. Exit code 0: done. 1: the disk
failed. 2: a mistake in what was given.
"""

import argparse
from pathlib import Path

from basicsr_clsd import cli
from basicsr_clsd.errors import UserError

MIB = 2**20


def report(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Read everything, make the page, and write it."""
    # Imported here so that --help and a mistyped argument need not wait.
    from basicsr_clsd.reporting.html import read_sources, report_page  # noqa: PLC0415
    from basicsr_clsd.runtime.files import check_writable, write_text  # noqa: PLC0415

    output = arguments.output
    if output.is_dir() or output.suffix.lower() not in ('.html', '.htm'):
        raise UserError(f'-o {output}: not the name of an .html file')
    check_writable(output.absolute().parent)
    page = report_page(
        read_sources(arguments.sources),
        arguments.title,
        output.absolute().parent,
        round(arguments.embed * MIB),
        arguments.paper,
        arguments.baseline,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, output)
    console.print(f'{output}  ({len(page.encode()) / MIB:.1f} MiB)', markup=False, highlight=False)


def size(text: str) -> float:
    """A number that is not negative, of the command line."""
    number = float(text)
    if not 0 <= number < float('inf'):
        raise ValueError
    return number


def main() -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sources', nargs='+', metavar='SOURCE')
    parser.add_argument('-o', '--output', type=Path, required=True, metavar='FILE', help='the HTML file to write')
    parser.add_argument('--title', default='Super-resolution results', help='default: %(default)s')
    parser.add_argument('--paper', action='store_true', help="put the paper's numbers into the tables")
    parser.add_argument('--baseline', metavar='METHOD', help='what differences are to (default: EDSR)')
    parser.add_argument(
        '--embed', type=size, default=32, metavar='MIB', help='embed pictures up to so many MiB (default: 32)'
    )
    parsed = parser.parse_args()
    cli.run(lambda console: report(parsed, console))
