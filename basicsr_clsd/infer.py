"""Upscale photos: ``python basicsr_clsd/infer.py -i PHOTO_OR_FOLDER -o OUT -m MODEL``."""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: import this checkout's package, and nothing by the bare names of its modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr_clsd import cli
from basicsr_clsd.errors import FAILURE


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Upscale photos with a trained network.')
    parser.add_argument('-i', '--input', type=Path, required=True, metavar='PHOTO_OR_FOLDER')
    parser.add_argument(
        '-o', '--out', type=Path, required=True, metavar='OUT', help='folder; for one photo also a file'
    )
    parser.add_argument(
        '-m',
        '--model',
        required=True,
        metavar='MODEL',
        help='.pth, .pt, .safetensors or .onnx; or a name in the model zoo',
    )
    parser.add_argument('-opt', metavar='YAML', help='options with the network_g of weights that are no EDSR')
    parser.add_argument(
        '--tile', type=int, metavar='N', help='side of tiles in pixels of the photo; 0: the whole photo'
    )
    parser.add_argument('--ensemble', action='store_true', help='mean of the eight turned and mirrored photos')
    parser.add_argument(
        '--runtime',
        choices=['torch', 'onnxruntime', 'openvino', 'ncnn', 'auto'],
        help='what runs the network; auto: the fastest that is installed (default: torch; for .onnx onnxruntime)',
    )
    parser.add_argument(
        '--precision',
        choices=['fp32', 'tf32', 'bf16', 'fp16', 'auto'],
        default='fp32',
        help='auto: bf16 where it is faster and costs at most 0.01 dB (default: %(default)s)',
    )
    parser.add_argument(
        '--alpha', choices=['network', 'bicubic'], default='network', help='how transparency is upscaled'
    )
    parser.add_argument('--suffix', help='behind the name of each photo; default _xSCALE')
    parser.add_argument('--format', default='png', help='png (default, keeps everything), jpg, tif, webp or bmp')
    parser.add_argument('--frames', action='store_true', help='all frames of animations, all pages; default: the first')
    parser.add_argument('--strip', action='store_true', help='leave out EXIF data and DPI; the colour profile stays')
    parser.add_argument('--overwrite', action='store_true', help='make files anew that are there already')
    parser.add_argument('--cpu', action='store_true', help='leave a GPU alone')
    return parser.parse_args()


def infer(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Check everything, then upscale photo by photo."""
    # Imported here so that --help and a mistyped argument need not wait for torch; the first, of BasicSR, no more than
    # an EDSR needs.
    from basicsr_clsd import Upscaler  # noqa: PLC0415
    from basicsr_clsd.errors import UserError  # noqa: PLC0415
    from basicsr_clsd.images.writer import FORMATS  # noqa: PLC0415
    from basicsr_clsd.inference.folder import Run  # noqa: PLC0415
    from basicsr_clsd.inference.plan import Naming, plan  # noqa: PLC0415
    from basicsr_clsd.runtime.memory import keep_freed_memory  # noqa: PLC0415

    cli.set_up_console(console).setLevel('WARNING')
    if arguments.tile is not None and arguments.tile < 0:
        raise UserError(f'--tile {arguments.tile}: must not be negative')
    extension = FORMATS.get(arguments.format.lower().lstrip('.'))
    if extension is None:
        raise UserError(f'--format {arguments.format}: must be one of {", ".join(FORMATS)}')
    if '/' in (arguments.suffix or ''):
        raise UserError(f'--suffix {arguments.suffix}: must not contain a slash')
    keep_freed_memory()
    upscaler = Upscaler(
        arguments.model,
        options=arguments.opt,
        tile=arguments.tile,
        ensemble=arguments.ensemble,
        runtime=arguments.runtime,
        precision=arguments.precision,
        alpha=arguments.alpha,
        gpu=not arguments.cpu,
    )
    if 'auto' in (arguments.runtime, arguments.precision):
        console.print(upscaler.choice, highlight=False, markup=False)
    suffix = f'_x{upscaler.scale}' if arguments.suffix is None else arguments.suffix
    run = Run(upscaler, console, arguments.frames, arguments.strip)
    naming = Naming(suffix, extension, arguments.frames)
    try:
        run.run(plan(arguments.input.expanduser(), arguments.out.expanduser(), naming), arguments.overwrite)
    finally:
        for failure in run.failures:
            sys.stderr.write(f'error: {failure}\n')
    if run.failures:
        sys.stderr.write(f'{len(run.failures)} could not be upscaled\n')
        sys.exit(FAILURE)


def main() -> None:
    """Parse the command line, and run."""
    arguments = parse()
    cli.run(lambda console: infer(arguments, console))


if __name__ == '__main__':
    main()
