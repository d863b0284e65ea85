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
EXTENSIONS = {'onnx': '.onnx', 'safetensors': '.safetensors', 'basicsr': '.pth', 'edsr-pytorch': '.pt'}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Export a trained network for other programs.')
    subparsers = parser.add_subparsers(dest='format', title='formats', metavar='FORMAT', required=True)
    onnx = subparsers.add_parser(
        'onnx', help='ONNX, of free height, width and batch; RGB, or luma, in [0, 1] in and out'
    )
    onnx.add_argument('--precision', choices=['fp32', 'fp16'], default='fp32', help='of weights and features')
    onnx.add_argument('--int8', action='store_true', help='quantise the convolutions; needs --calibrate')
    onnx.add_argument('--calibrate', type=Path, metavar='FOLDER', help='photos, HR, to quantise by')
    onnx.add_argument('--opset', type=int, default=OPSET, help='version of the operators (default: %(default)s)')
    others = [
        subparsers.add_parser('safetensors', help="weights under BasicSR's names, with a header"),
        subparsers.add_parser('basicsr', help="weights as BasicSR's networks are saved, a .pth with params"),
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
    from basicsr_clsd.runtime.files import check_writable  # noqa: PLC0415

    cli.set_up_console(console).setLevel('WARNING')
    to_onnx = arguments.format == 'onnx'
    if to_onnx and arguments.int8 != (arguments.calibrate is not None):
        raise UserError('--int8 and --calibrate FOLDER need each other')
    if to_onnx and arguments.int8 and arguments.precision != 'fp32':
        raise UserError(f'--int8: leaves what it does not quantise in fp32; not with --precision {arguments.precision}')
    source = model_file(arguments.model)
    if source.suffix.lower() == ONNX:
        raise UserError(f'{source}: an ONNX file has no weights that could be exported again')
    network = load(source, *section_in(arguments.opt), gpu=False)
    assert isinstance(network, TorchNetwork)
    if arguments.format == 'web':
        export_web(arguments, network, source, console)
        return
    extension = EXTENSIONS[arguments.format]
    path = arguments.out.expanduser()
    if path.is_dir() or path.suffix != extension:
        kind = ('_int8' if arguments.int8 else {'fp16': '_fp16'}.get(arguments.precision, '')) if to_onnx else ''
        path /= f'{writers.default_name(network, source)}{kind}{extension}'
    check_writable(path.parent)
    if path.exists() and not arguments.overwrite:
        raise UserError(f'{path}: is there already; --overwrite replaces it')
    path.parent.mkdir(parents=True, exist_ok=True)
    header = writers.header_of(network, source)
    if to_onnx:
        what = arguments.precision if arguments.calibrate is None else arguments.calibrate
        writers.write_onnx(network, path, header, what, arguments.opset, console)
    elif arguments.format == 'safetensors':
        writers.write_safetensors(network, path, header)
    else:
        write = writers.write_basicsr if arguments.format == 'basicsr' else writers.write_edsr_pytorch
        write(network, path)
    size = path.stat().st_size
    console.print(
        f'{path}: x{network.scale}, {network.parameters:,} parameters, {size:,} bytes', highlight=False, markup=False
    )


def main() -> None:
    """Parse the command line, and run."""
    arguments = parse()
    cli.run(lambda console: export(arguments, console))


if __name__ == '__main__':
    main()
