"""Export a trained network for other programs: ``python basicsr_clsd/export.py onnx -m MODEL``."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: import this checkout's package, and nothing by the bare names of its modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr_clsd import cli

if TYPE_CHECKING:
    from basicsr_clsd.inference.torch_network import TorchNetwork

OPSET = 20
EXTENSIONS = {
    'onnx': '.onnx',
    'ncnn': '.param',
    'executorch': '.pte',
    'coreml': '.mlpackage',
    'safetensors': '.safetensors',
    'basicsr': '.pth',
    'official': '.pth',
    'edsr-pytorch': '.pt',
}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Export a trained network for other programs.')
    subparsers = parser.add_subparsers(dest='format', title='formats', metavar='FORMAT', required=True)
    onnx = subparsers.add_parser(
        'onnx', help='ONNX, of free height, width and batch; RGB, or luma, in [0, 1] in and out'
    )
    ncnn = subparsers.add_parser('ncnn', help='a pair .param, .bin for ncnn, Upscayl and Real-ESRGAN-ncnn-vulkan')
    coreml = subparsers.add_parser('coreml', help="a package for Apple's devices; it cannot be run elsewhere")
    for subparser, what in ((onnx, 'weights and features'), (ncnn, 'weights'), (coreml, 'weights and features')):
        subparser.add_argument('--precision', choices=['fp32', 'fp16'], default='fp32', help=f'of {what}')
    onnx.add_argument(
        '--int8',
        nargs='?',
        const='onnxruntime',
        choices=['onnxruntime', 'openvino'],
        help='quantise the convolutions, as a runtime likes it (default: onnxruntime); needs --calibrate',
    )
    onnx.add_argument('--calibrate', type=Path, metavar='FOLDER', help='photos, HR, to quantise by')
    onnx.add_argument('--opset', type=int, default=OPSET, help='version of the operators (default: %(default)s)')
    others = [
        ncnn,
        coreml,
        subparsers.add_parser('executorch', help='a .pte program for phones and boards, by XNNPACK'),
        subparsers.add_parser('safetensors', help="weights under BasicSR's names, with a header"),
        subparsers.add_parser('basicsr', help="weights as BasicSR's networks are saved, a .pth with params"),
        subparsers.add_parser('official', help="an RCAN's state dict under the names of its authors"),
        subparsers.add_parser('edsr-pytorch', help='a state dict under the names of EDSR-PyTorch'),
    ]
    web = subparsers.add_parser('web', help='a folder with a web page that upscales photos in the browser')
    web.add_argument(
        '--runtime-package', type=Path, metavar='TGZ', help='of npm pack onnxruntime-web (default: npm downloads it)'
    )
    for subparser in (onnx, web, *others):
        subparser.add_argument(
            '-m', '--model', required=True, metavar='MODEL', help='weights, or a name in the model zoo'
        )
        subparser.add_argument('-opt', metavar='YAML', help='options with the network_g of weights that are no EDSR')
        subparser.add_argument(
            '-o', '--out', type=Path, default=Path(), metavar='OUT', help='file, or folder (default: the current one)'
        )
        subparser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    return parser.parse_args()


def export_web(arguments: argparse.Namespace, network: 'TorchNetwork', source: Path, console: cli.Console) -> None:
    """Write the folder of a web page; one that is there is replaced only if it is such a folder."""
    from basicsr_clsd.deploy import web, writers  # noqa: PLC0415
    from basicsr_clsd.errors import UserError  # noqa: PLC0415
    from basicsr_clsd.runtime.files import check_writable  # noqa: PLC0415

    name = writers.default_name(network, source)
    folder = arguments.out.expanduser()
    if folder == Path():
        folder = Path(f'{name}_web')
    check_writable(folder.parent)
    if folder.exists() and not (arguments.overwrite and web.is_page(folder)):
        can = '--overwrite replaces it' if web.is_page(folder) else 'and no page of this command; give another name'
        raise UserError(f'{folder}: is there already; {can}')
    folder.parent.mkdir(parents=True, exist_ok=True)
    header = writers.header_of(network, source)
    web.write_web(network, folder, name, header, arguments.runtime_package, console)
    console.print(
        f'{folder}: a page for any web server; here: python -m http.server -d {folder}', highlight=False, markup=False
    )


def export(arguments: argparse.Namespace, console: cli.Console) -> None:
    """Open the weights and write them in the format that was asked for."""
    # Imported here so that --help and a mistyped argument need not wait for torch.
    from basicsr_clsd.deploy import writers  # noqa: PLC0415
    from basicsr_clsd.errors import UserError  # noqa: PLC0415
    from basicsr_clsd.inference.loader import load, section_in  # noqa: PLC0415
    from basicsr_clsd.inference.torch_network import TorchNetwork  # noqa: PLC0415
    from basicsr_clsd.networks.zoo import ONNX, model_file  # noqa: PLC0415

    cli.set_up_console(console).setLevel('WARNING')
    to_onnx, half = arguments.format == 'onnx', getattr(arguments, 'precision', 'fp32') == 'fp16'
    if to_onnx and bool(arguments.int8) != (arguments.calibrate is not None):
        raise UserError('--int8 and --calibrate FOLDER need each other')
    if to_onnx and arguments.int8 and half:
        raise UserError(f'--int8: leaves what it does not quantise in fp32; not with --precision {arguments.precision}')
    source = model_file(arguments.model)
    if source.suffix.lower() == ONNX:
        raise UserError(f'{source}: an ONNX file has no weights that could be exported again')
    network = load(source, *section_in(arguments.opt), gpu=False)
    assert isinstance(network, TorchNetwork)
    if arguments.format == 'web':
        export_web(arguments, network, source, console)
        return
    kind = {None: '', 'onnxruntime': '_int8', 'openvino': '_int8_openvino'}[getattr(arguments, 'int8', None)]
    kind = '_fp16' if half else kind
    path = file_for(arguments, f'{writers.default_name(network, source)}{kind}')
    note = write(arguments, network, source, path, console)
    files = (path, *path.rglob('*'), *([path.with_suffix('.bin')] if arguments.format == 'ncnn' else []))
    size = sum(file.stat().st_size for file in files if file.is_file())
    console.print(
        f'{path}: x{network.scale}, {network.parameters:,} parameters, {size:,} bytes{note}',
        highlight=False,
        markup=False,
    )


def file_for(arguments: argparse.Namespace, name: str) -> Path:
    """The path to write to, of this name if ``--out`` gives none, in a folder that is there."""
    from basicsr_clsd.errors import UserError  # noqa: PLC0415
    from basicsr_clsd.runtime.files import check_writable  # noqa: PLC0415

    extension = EXTENSIONS[arguments.format]
    path = arguments.out.expanduser()
    if path.suffix != extension or (path.is_dir() and arguments.format != 'coreml'):
        path /= f'{name}{extension}'
    check_writable(path.parent)
    for file in (path, path.with_suffix('.bin')) if arguments.format == 'ncnn' else (path,):
        if file.exists() and not arguments.overwrite:
            raise UserError(f'{file}: is there already; --overwrite replaces it')
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(
    arguments: argparse.Namespace, network: 'TorchNetwork', source: Path, path: Path, console: cli.Console
) -> str:
    """Write the file, or files; return a note on them, or nothing."""
    from basicsr_clsd.deploy import devices, writers  # noqa: PLC0415

    header = writers.header_of(network, source)
    half = getattr(arguments, 'precision', 'fp32') == 'fp16'

    def write_onnx() -> None:
        what = arguments.precision if arguments.calibrate is None else arguments.calibrate
        by_openvino = arguments.int8 == 'openvino'
        writers.write_onnx(network, path, header, what, arguments.opset, console, by_openvino)

    by_format = {
        'onnx': write_onnx,
        'ncnn': lambda: devices.write_ncnn(network, path, half),
        'executorch': lambda: devices.write_executorch(network, path),
        'coreml': lambda: devices.write_coreml(network, path, half),
        'safetensors': lambda: writers.write_safetensors(network, path, header),
        'basicsr': lambda: writers.write_basicsr(network, path),
        'official': lambda: writers.write_official(network, path),
        'edsr-pytorch': lambda: writers.write_edsr_pytorch(network, path),
    }
    return by_format[arguments.format]() or ''


def main() -> None:
    """Parse the command line, and run."""
    arguments = parse()
    cli.run(lambda console: export(arguments, console))


if __name__ == '__main__':
    main()
