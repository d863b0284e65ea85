"""Files for phones, boards and desktop upscalers, compared with the network before they get their names."""

import shutil
from pathlib import Path

from basicsr_clsd.conversion.coreml import write_coreml_package
from basicsr_clsd.conversion.executorch import LARGEST_SIDE, to_executorch
from basicsr_clsd.conversion.ncnn import to_ncnn
from basicsr_clsd.conversion.source import absent
from basicsr_clsd.deploy.check import HALF_TOLERANCE, check
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.runtimes import NCNN, ExecutorchProgram, NcnnNetwork
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.runtime.files import hidden_path, write_bytes

TOLERANCE = 1e-4  # in [0, 1]: Winograd convolutions round more than torch's
NCNN_SCALES = (2, 3, 4)  # of Real-ESRGAN-ncnn-vulkan and Upscayl


def write_ncnn(network: TorchNetwork, path: Path, half: bool) -> str:
    """Write the pair NAME.param and NAME.bin.

    Args:
        network: What is exported.
        path: NAME.param.
        half: Weights in fp16.

    Returns:
        A note, if it could not be run and compared, which needs the package ncnn.

    Raises:
        UserError: ncnn cannot take the network, or the name tells another scale.
    """
    read = scale_read_by_upscayl(path.stem)
    if network.scale in NCNN_SCALES and read != network.scale:
        raise UserError(f'{path}: Upscayl would read scale {read} off this name, not {network.scale}; give another')
    model = to_ncnn(network.source(), half)
    runs = not absent(NCNN)
    if runs:
        check(lambda: NcnnNetwork(model), network, 'ncnn', HALF_TOLERANCE if half else TOLERANCE)
    write_bytes(model.weights, path.with_suffix('.bin'))
    write_bytes(model.param.encode(), path)
    return '' if runs else '; not run, as ncnn is not installed'


def scale_read_by_upscayl(name: str) -> int:
    """The scale that Upscayl takes a model for: 2 by ``x2`` or ``2x`` anywhere in the name, 3 likewise, else 4."""
    lower = name.lower()
    return next((scale for scale in (2, 3) if f'x{scale}' in lower or f'{scale}x' in lower), 4)


def write_executorch(network: TorchNetwork, path: Path) -> str:
    """Write a ``.pte`` file, compared with the network by ExecuTorch's own runtime.

    Returns:
        A note on its limits.

    Raises:
        UserError: ExecuTorch cannot take the network.
    """
    program = to_executorch(network.source())
    check(lambda: ExecutorchProgram(program), network, 'ExecuTorch', TOLERANCE)
    write_bytes(program, path)
    return f'; for images of at most {LARGEST_SIDE} x {LARGEST_SIDE}'


def write_coreml(network: TorchNetwork, path: Path, half: bool) -> str:
    """Write an ``.mlpackage``; it runs on Apple's systems alone, so it is not compared with the network.

    Returns:
        A note that says so.

    Raises:
        UserError: coremltools cannot take the network, or something else than a package has its name.
    """
    if path.exists() and not (path / 'Manifest.json').is_file():
        raise UserError(f'{path}: is there already, and no Core ML package; give another name')
    whole = hidden_path(path, 'new.mlpackage')
    shutil.rmtree(whole, ignore_errors=True)
    try:
        write_coreml_package(network.source(), half, whole)
        if path.exists():
            shutil.rmtree(path)
        whole.rename(path)
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return "; converted and not run, which Apple's systems alone can"
