"""Writing exported files: ONNX, and weights alone in the formats and under the names that other programs read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from rich.console import Console
from torch import Tensor

import basicsr_clsd
from basicsr_clsd.conversion.source import require
from basicsr_clsd.deploy.check import HALF_TOLERANCE
from basicsr_clsd.deploy.int8 import quantise, read_calibration
from basicsr_clsd.deploy.onnx import check_onnx, finish, in_half_precision, onnx_model
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.onnx_network import RECEPTIVE_FIELD
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.check import LUMA
from basicsr_clsd.networks.edsr_pytorch import with_edsr_pytorch_names
from basicsr_clsd.networks.origin import NETWORK, SCALE, experiment_of, training_of
from basicsr_clsd.networks.rcan_official import with_official_names
from basicsr_clsd.runtime.files import save, write_bytes

THOUSAND = 1000


def header_of(network: TorchNetwork, source: Path) -> dict[str, str]:
    """The header of an exported file.

    Args:
        network: What is exported.
        source: The file that it was opened from.

    Returns:
        ``scale``, ``channels``, ``color`` (``rgb``, or ``y``: luma of ITU-R BT.601 in [16, 235]), ``parameters``,
        ``network_g`` (arch and arguments, JSON), ``source`` and its SHA-256; ``run`` where it is known: name, seed and
        iteration of the training, JSON; and how far the network sees, if that is known.
    """
    run = training_of(source)
    facts = {
        'made_by': f'basicsr-clsd {basicsr_clsd.__version__}',
        SCALE: str(network.scale),
        'channels': str(network.channels),
        'color': 'y' if network.channels == LUMA else 'rgb',
        'parameters': str(network.parameters),
        NETWORK: json.dumps(network.section.as_dict()),
        'source': source.name,
        'source_sha256': hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    if run is not None:
        facts['run'] = json.dumps({key: run[key] for key in ('name', 'manual_seed', 'iteration')})
    if network.receptive_field is not None:
        facts[RECEPTIVE_FIELD] = str(network.receptive_field)
    return facts


def default_name(network: TorchNetwork, source: Path) -> str:
    """The name of an exported file, without extension: run or file, scale and parameters, as ``CLSD_x2_1370K``."""
    experiment = experiment_of(source)
    name = source.stem if experiment is None else experiment.name
    scale = f'x{network.scale}'
    if scale not in name.split('_'):
        name = f'{name}_{scale}'
    return f'{name}_{round(network.parameters / THOUSAND)}K'


def write_onnx(  # noqa: PLR0913
    network: TorchNetwork,
    path: Path,
    header: Mapping[str, str],
    kind: Literal['fp32', 'fp16'] | Path,
    opset: int,
    console: Console,
    for_openvino: bool = False,
) -> None:
    """Export a network, check that it computes what the network does, and write it.

    Args:
        network: What is exported.
        path: The file.
        header: Texts that are written into it.
        kind: Precision; a folder of HR photos: int8, quantised by them.
        opset: Version of ONNX's operators.
        console: Is told what was measured.
        for_openvino: See :func:`~basicsr_clsd.deploy.int8.quantise`.

    Raises:
        UserError: It cannot be exported or quantised.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    require('deploy', 'onnx', 'onnxruntime')
    facts = dict(header)
    # Before the first of its seconds is spent.
    calibration = read_calibration(kind, network, console) if isinstance(kind, Path) else None
    model = onnx_model(network, opset)
    if calibration is not None:
        result = quantise(model, calibration, network.scale, say, for_openvino)
        model = result.model
        in_float = ', '.join(result.in_float) or 'none'
        change = f'{result.before:.3f} dB in fp32, {result.after:.3f} dB in int8'
        quantised = result.convolutions - len(result.in_float)
        say(f'int8: {quantised} of {result.convolutions} convolutions; in float: {in_float}')
        count, difference = len(calibration.held_out), result.after - result.before
        say(f'{count} photos held out, PSNR on Y: {change} ({difference:+.3f} dB)')
        facts |= {'precision': 'int8', 'in_float': in_float, 'held_out_psnr_y': change}
    elif kind == 'fp16':
        model = in_half_precision(model)
        say(f'fp16: differs by at most {255 * check_onnx(model, network, HALF_TOLERANCE):.3f} of 255 from fp32')
        facts['precision'] = 'fp16'
    else:
        facts['precision'] = 'fp32'
    write_bytes(finish(model, facts), path)


def write_safetensors(network: TorchNetwork, path: Path, header: Mapping[str, str]) -> None:
    """Write a ``.safetensors`` file: weights under BasicSR's names, and texts as its header.

    Raises:
        UserError: safetensors is not installed.
    """
    require('deploy', 'safetensors')
    from safetensors.torch import save as serialised  # noqa: PLC0415  (an extra)

    write_bytes(serialised(_weights(network), dict(header)), path)


def write_basicsr(network: TorchNetwork, path: Path) -> None:
    """Write ``{'params': weights}`` under BasicSR's names, as its networks are saved."""
    save({'params': _weights(network)}, path)


def write_edsr_pytorch(network: TorchNetwork, path: Path) -> None:
    """Write a state dict under the names of EDSR-PyTorch.

    Raises:
        UserError: The network is no EDSR.
    """
    if not isinstance(network.module, EDSR):
        raise UserError(f'{network.arch}: EDSR-PyTorch has names for the weights of an EDSR alone')
    save({name: value.contiguous() for name, value in with_edsr_pytorch_names(network.module).items()}, path)


def write_official(network: TorchNetwork, path: Path) -> None:
    """Write a state dict under the names of an arch's authors, by which spandrel and others know it.

    Raises:
        UserError: BasicSR's names of this arch are those that others know, or its authors' code has no room for it.
    """
    if not isinstance(network.module, RCAN):
        raise UserError(f"{network.arch}: has no other names than BasicSR's; RCAN alone has, EDSR by edsr-pytorch")
    save({name: value.cpu().contiguous() for name, value in with_official_names(network.module).items()}, path)


def _weights(network: TorchNetwork) -> dict[str, Tensor]:
    return {name: value.cpu().contiguous() for name, value in network.module.state_dict().items()}
