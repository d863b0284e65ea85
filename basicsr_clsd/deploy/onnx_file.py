"""Writing ONNX files: fp32, fp16 or int8, with a header."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich.console import Console

from basicsr_clsd.deploy.calibration import read_calibration
from basicsr_clsd.deploy.int8 import quantise
from basicsr_clsd.deploy.onnx import HALF_TOLERANCE, check, in_half_precision, onnx_model, require, set_header
from basicsr_clsd.inference.deployed_network import DeployedNetwork
from basicsr_clsd.runtime.files import write_bytes


def write_onnx(  # noqa: PLR0913
    network: DeployedNetwork,
    path: Path,
    header: Mapping[str, str],
    kind: Literal['fp32', 'fp16'] | Path,
    opset: int,
    console: Console,
) -> None:
    """Export a network, check that it computes what the network does, and write it.

    Args:
        network: What is exported.
        path: The file.
        header: Texts that are written into it.
        kind: Precision; a folder of HR photos: int8, quantised by them.
        opset: Version of ONNX's operators.
        console: Is told what was measured.

    Raises:
        UserError: It cannot be exported or quantised.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    require()
    facts = dict(header)
    # Before the first of its seconds is spent.
    calibration = read_calibration(kind, network.scale, console) if isinstance(kind, Path) else None
    model = onnx_model(network, opset)
    if calibration is not None:
        result = quantise(model, calibration, network.scale, say)
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
        say(f'fp16: differs by at most {255 * check(model, network, HALF_TOLERANCE):.3f} of 255 from fp32')
        facts['precision'] = 'fp16'
    else:
        facts['precision'] = 'fp32'
    set_header(model, facts)
    write_bytes(model.SerializeToString(), path)
