"""Prepare image data for training and tests: ``python scripts/prepare_data.py div2k``.

Exit code 0: done. 1: a connection or the disk failed, and running the command again goes on; or there is something
wrong with the images, which is listed. 2: a mistake in what was given.
"""

import argparse
import json
import sys
from pathlib import Path

from basicsr_clsd import cli
from basicsr_clsd.errors import FAILURE, UserError

PATCH = 48  # LR pixels: what the shipped options cut

# What the subcommands do is imported when one runs, so that --help and a mistyped argument need not wait for torch.


def fraction(text: str) -> float:
    """A number of at least 0 and below 1, of the command line."""
    number = float(text)
    if not 0 <= number < 1:
        raise ValueError
    return number


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add the folder that everything is written to."""
    parser.add_argument(
        '--root',
        type=Path,
        default=Path('datasets'),
        help='folder of the data (default: %(default)s in the current folder, or $CLSD_DATA where that is set)',
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add where published archives come from."""
    parser.add_argument(
        '--archives', type=Path, metavar='DIR', help='take the archives from this folder, download none'
    )
    parser.add_argument('--mirror', metavar='URL', help='download from this folder of another server')
    parser.add_argument(
        '--catalogue',
        type=Path,
        metavar='YAML',
        help='names, sizes and checksums of other archives, as basicsr_clsd/prepare/catalogues has them',
    )


def add_form(parser: argparse.ArgumentParser) -> None:
    """Add which LR images there are to be, and how the images are stored."""
    parser.add_argument(
        '--scales', type=int, nargs='+', choices=(2, 3, 4), default=[2, 3, 4], help='LR images (default: 2 3 4)'
    )
    parser.add_argument(
        '--storage',
        choices=('raw', 'folder', 'png-lmdb'),
        default='raw',
        help='beside the folders of PNG files: an LMDB of raw pixels (default), none, or an LMDB as BasicSR makes it',
    )


def add_div2k(subparsers: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add ``div2k``: download, unpack, check and store DIV2K."""
    parser = subparsers.add_parser('div2k', help='DIV2K: download, unpack, check, store')
    add_root(parser)
    add_source(parser)
    add_form(parser)

    def run(arguments: argparse.Namespace, console: cli.Console) -> None:
        from basicsr_clsd.prepare import div2k  # noqa: PLC0415

        catalogue = div2k.load_catalogue(arguments.catalogue, arguments.mirror)
        div2k.prepare(catalogue, arguments.root, arguments.scales, arguments.storage, arguments.archives, console)

    parser.set_defaults(run=run)


def add_benchmarks(subparsers: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add ``benchmarks``: download the benchmark sets and bring them into one form."""
    parser = subparsers.add_parser(
        'benchmarks', help='Set5, Set14, B100, Urban100: download, unpack, bring in one form'
    )
    add_root(parser)
    add_source(parser)

    def run(arguments: argparse.Namespace, console: cli.Console) -> None:
        from basicsr_clsd.prepare import benchmark_sets  # noqa: PLC0415

        catalogue = benchmark_sets.load_catalogue(arguments.catalogue, arguments.mirror)
        benchmark_sets.prepare(catalogue, arguments.root, arguments.archives, console)

    parser.set_defaults(run=run)


PHOTOS = """
Photos are any files that OpenCV reads, in sub-folders too; hidden ones are left out. 16 bits are rounded to 8, gray
becomes three equal channels, an opaque alpha channel is dropped, transparent parts are laid on white, photos are turned
as their EXIF data ask; floating-point images and cameras' raw files are refused. HR images are cropped at the bottom
and the right to a multiple of all scales; LR images are MATLAB's bicubic of them. If photos cannot be read, all of
these are listed and nothing is made (exit code 1); copies and photos that are too small are left out, and listed.
"""


def add_folder(subparsers: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add ``folder``: make a set to train on from one's own photos."""
    parser = subparsers.add_parser('folder', help="one's own photos: a set to train on", description=PHOTOS)
    parser.add_argument('source', type=Path, metavar='SRC', help='folder of photos; never written to')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='OUT', help='folder to make')
    add_form(parser)
    val = parser.add_mutually_exclusive_group()
    val.add_argument(
        '--val-fraction',
        type=fraction,
        default=0.1,
        metavar='F',
        help='part of the photos to validate on (default: %(default)s); photos added later do not change the choice',
    )
    val.add_argument('--val', type=cli.count, metavar='N', help='number of photos to validate on')
    parser.add_argument('--seed', type=cli.count, default=0, help='of the choice of these photos (default: 0)')
    parser.add_argument(
        '--min-size',
        type=cli.count,
        metavar='N',
        help='leave out photos with a side below this (default: 48 times the largest scale, the patch of the options)',
    )

    def run(arguments: argparse.Namespace, console: cli.Console) -> None:
        from basicsr_clsd.config.paths import located  # noqa: PLC0415
        from basicsr_clsd.prepare.photo_set import Rules, prepare  # noqa: PLC0415

        scales = tuple(sorted(set(arguments.scales)))
        rules = Rules(
            scales=scales,
            val=arguments.val_fraction if arguments.val is None else arguments.val,
            seed=arguments.seed,
            min_size=PATCH * max(scales) if arguments.min_size is None else arguments.min_size,
            storage=arguments.storage,
        )
        if not prepare(located(arguments.source), located(arguments.out), rules, console):
            sys.exit(FAILURE)

    parser.set_defaults(run=run)


def add_check(subparsers: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add ``check``: tell all that is wrong with data sets."""
    parser = subparsers.add_parser(
        'check',
        help='tell all that is wrong with data sets',
        description='Tell all that is wrong with data sets. Exit code 0: nothing; 1: something; 2: wrong usage.',
    )
    parser.add_argument(
        'paths',
        nargs='+',
        metavar='SET',
        help='HR (a folder or an .lmdb), HR:LR, or a folder that holds such by the usual names: HR and LRbicx2, '
        'HR/x2 and LRbicx2, DIV2K_train_HR and DIV2K_train_LR_bicubic/X2, train/HR and val/HR',
    )
    parser.add_argument(
        '--against', nargs='+', default=[], metavar='SET', help='tell which images of SET are in these sets too'
    )
    parser.add_argument(
        '--scale', type=cli.positive, help='check LR images of this scale alone (default: as names and sizes tell)'
    )
    parser.add_argument('--patch', type=cli.positive, metavar='N', help='tell HR images too small for such patches')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the list there too')

    def run(arguments: argparse.Namespace, console: cli.Console) -> None:
        from basicsr_clsd.prepare.checks.sets import check_sets  # noqa: PLC0415
        from basicsr_clsd.runtime.files import check_writable, write_text  # noqa: PLC0415

        if arguments.json:
            if not arguments.json.parent.is_dir():
                raise UserError(f'{arguments.json.parent}: no such folder')
            check_writable(arguments.json.parent)
        report = check_sets(
            arguments.paths, arguments.against, scale=arguments.scale, patch=arguments.patch, console=console
        )
        for line in [*map(str, report.problems), report.summary()]:
            console.print(line.encode('utf-8', 'backslashreplace').decode(), highlight=False, markup=False)
        if arguments.json:
            write_text(json.dumps(report.as_json(), indent=1) + '\n', arguments.json)
        if report.problems:
            sys.exit(FAILURE)

    parser.set_defaults(run=run)


def add_subimages(subparsers: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add ``subimages``: cut BasicSR's sub-images."""
    parser = subparsers.add_parser('subimages', help="BasicSR's sub-images, HR and LR cut together")
    parser.add_argument('source', metavar='HR[:LR...]', help='HR images, and LR images of one or more scales')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='OUT', help='folder to make: HR, LRbicx2, ...')
    parser.add_argument('--size', type=cli.positive, default=480, help='side in HR pixels (default: %(default)s)')
    parser.add_argument('--step', type=cli.positive, default=240, help='from one to the next (default: %(default)s)')
    parser.add_argument(
        '--rest',
        type=cli.count,
        default=0,
        help="cut a last one at the edge if more pixels than this are left; BasicSR's thresh_size (default: 0)",
    )

    def run(arguments: argparse.Namespace, console: cli.Console) -> None:
        from basicsr_clsd.config.paths import located  # noqa: PLC0415
        from basicsr_clsd.prepare.layout import given_paths  # noqa: PLC0415
        from basicsr_clsd.prepare.pairs import PairedStores  # noqa: PLC0415
        from basicsr_clsd.prepare.subimages import Grid, cut_subimages  # noqa: PLC0415

        grid = Grid(arguments.size, arguments.step, arguments.rest)
        cut_subimages(PairedStores(given_paths(arguments.source)), located(arguments.out), grid, console)

    parser.set_defaults(run=run)


def add_lmdb(subparsers: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    """Add ``lmdb``: store images in LMDBs."""
    parser = subparsers.add_parser('lmdb', help="LMDBs of PNG images, as BasicSR's, or of raw pixels")
    parser.add_argument(
        'sources', nargs='+', metavar='HR[:LR...]', help='folders of images; those of LR get the names of HR'
    )
    parser.add_argument(
        '-o', '--out', type=Path, metavar='DIR', help='where NAME.lmdb goes (default: beside the folder NAME)'
    )
    parser.add_argument('--raw', action='store_true', help='raw pixels: larger, and patches are read without decoding')

    def run(arguments: argparse.Namespace, console: cli.Console) -> None:
        from basicsr_clsd.config.paths import located  # noqa: PLC0415
        from basicsr_clsd.prepare.layout import given_paths  # noqa: PLC0415
        from basicsr_clsd.prepare.pairs import PairedStores, build_lmdbs  # noqa: PLC0415
        from basicsr_clsd.prepare.workspace import bar  # noqa: PLC0415

        folder = None if arguments.out is None else located(arguments.out)
        for sources in [PairedStores(given_paths(text)) for text in arguments.sources]:
            for target, new in build_lmdbs(sources, arguments.raw, folder, bar(console, 'Storing')).items():
                line = f'Stored {target}' if new else f'{target}: is there already, made from these images'
                console.print(line, highlight=False, markup=False)

    parser.set_defaults(run=run)


def main() -> None:
    """Parse, and run the subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(title='what to do', metavar='WHAT', required=True)
    for add in (add_div2k, add_benchmarks, add_folder, add_check, add_subimages, add_lmdb):
        add(subparsers)
    arguments = parser.parse_args()
    cli.run(lambda console: arguments.run(arguments, console))
