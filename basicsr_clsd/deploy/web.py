"""A static web page that upscales photos in the visitor's browser."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

import basicsr_clsd
from basicsr_clsd.conversion.onnx import INPUT, OPSET, OUTPUT
from basicsr_clsd.conversion.source import require
from basicsr_clsd.deploy.onnx import finish, onnx_model
from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.images import comparison
from basicsr_clsd.inference.tiles import UNBOUNDED_OVERLAP
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.inference.transforms import BICUBIC_FIELD
from basicsr_clsd.runtime.files import hidden_path

PACKAGE = 'onnxruntime-web@^1.30'
RUNTIME = (
    'ort.wasm.min.mjs',
    'ort-wasm-simd-threaded.mjs',
    'ort-wasm-simd-threaded.wasm',
    'ort.webgpu.min.mjs',
    'ort-wasm-simd-threaded.asyncify.mjs',
    'ort-wasm-simd-threaded.asyncify.wasm',
)
PAGE = ('page.css', 'page.js', 'worker.js')
TILE = 128  # LR pixels: the memory of a phone, and progress that is seen
SHARPNESS = -0.5  # of MATLAB's bicubic (Keys, 1981)


def write_web(  # noqa: PLR0913
    network: TorchNetwork, folder: Path, name: str, header: Mapping[str, str], package: Path | None, console: Console
) -> None:
    """Write a folder that any static server can serve: a page, the network in ONNX, and the runtime for it.

    Args:
        network: What upscales.
        folder: Where; one that is there is replaced when the new one is whole.
        name: Of the network, for the page.
        header: Texts for the metadata of the ONNX file.
        package: The npm package ``onnxruntime-web`` as a file; None: npm gets it.
        console: Is told what is done.

    Raises:
        UserError: The network has no ONNX form, or the package cannot be had or lacks a file.
    """
    require('deploy', 'onnx', 'onnxruntime')
    model = finish(onnx_model(network, OPSET), header)
    field = network.receptive_field
    facts = {
        'scale': network.scale,
        'channels': network.channels,
        'tile': TILE,
        'overlap': UNBOUNDED_OVERLAP if field is None else max(field, BICUBIC_FIELD),
    }
    new = hidden_path(folder)
    shutil.rmtree(new, ignore_errors=True)
    try:
        (new / 'ort').mkdir(parents=True)
        runtime = _add_runtime(package, new / 'ort', console)
        (new / 'network.onnx').write_bytes(model)
        (new / 'bicubic.onnx').write_bytes(finish(_bicubic(network.scale), {}))
        for part in (comparison.STYLE, *comparison.SCRIPTS):
            (new / part).write_text(comparison.part(part), encoding='utf-8')
        for part in PAGE:
            shutil.copyfile(Path(__file__).with_name('page') / part, new / part)
        page = _template().render(
            name=name,
            scale=network.scale,
            parameters=f'{network.parameters:,}',
            where='luma by the network, colours by bicubic' if network.channels == 1 else 'RGB',
            version=basicsr_clsd.__version__,
            runtime=runtime,
            facts=facts,
        )
        (new / 'index.html').write_text(page, encoding='utf-8')
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def is_page(folder: Path) -> bool:
    """Whether :func:`write_web` made a folder."""
    return all((folder / name).is_file() for name in ('network.onnx', 'bicubic.onnx', *PAGE))


def _template() -> Any:
    loader = PackageLoader('basicsr_clsd.deploy', 'page')
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template('index.html.j2')


def _bicubic(scale: int) -> Any:
    """MATLAB's bicubic, but for its borders, as a model of planes (N, C, h, w)."""
    import onnx  # noqa: PLC0415  (an extra)

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    resize = helper.make_node(
        'Resize',
        [INPUT, '', 'scales'],
        [OUTPUT],
        mode='cubic',
        cubic_coeff_a=SHARPNESS,
        coordinate_transformation_mode='half_pixel',
    )
    graph = helper.make_graph(
        [resize],
        'bicubic',
        [helper.make_tensor_value_info(INPUT, kind, ['n', 'c', 'h', 'w'])],
        [helper.make_tensor_value_info(OUTPUT, kind, ['n', 'c', 'H', 'W'])],
        [helper.make_tensor('scales', kind, [4], [1, 1, scale, scale])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', OPSET)], ir_version=10)


def _add_runtime(package: Path | None, folder: Path, console: Console) -> str:
    """Put the runtime's files and its licence into a folder; return its version."""
    with tempfile.TemporaryDirectory() as place:
        file = package or _packed(Path(place), console)
        try:
            with tarfile.open(file) as archive:
                archive.extractall(place, filter='data')
            for name in RUNTIME:
                shutil.copyfile(Path(place, 'package', 'dist', name), folder / name)
            about = json.loads(Path(place, 'package', 'package.json').read_text(encoding='utf-8'))
        except (OSError, tarfile.TarError, ValueError) as error:
            raise UserError(f'{file}: not the npm package {PACKAGE}: {first_line(error)}') from error
    shutil.copyfile(Path(__file__).with_name('page') / 'LICENSE.onnxruntime.txt', folder / 'LICENSE.txt')
    return str(about['version'])


def _packed(folder: Path, console: Console) -> Path:
    """Let npm download the package."""
    npm = shutil.which('npm')
    if npm is None:
        raise UserError(
            f"npm is not installed; install it, or give --runtime-package FILE, made elsewhere by 'npm pack {PACKAGE}'"
        )
    console.print(f'npm gets {PACKAGE} ...', highlight=False, markup=False)
    command = [npm, 'pack', PACKAGE, '--silent', '--pack-destination', str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob('*.tgz'))
    if ended.returncode or len(found) != 1:
        reason = (ended.stderr.strip().splitlines() or [f'exit code {ended.returncode}'])[-1]
        raise UserError(f'npm pack {PACKAGE}: {reason}')
    return found[0]
