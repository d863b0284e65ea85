"""From a network to a Core ML package for Apple's devices."""

from pathlib import Path
from typing import Any

import torch

from basicsr_clsd.compat import finish_deferred
from basicsr_clsd.conversion.onnx import INPUT, OUTPUT
from basicsr_clsd.conversion.source import TRACED, Source, free_size, quiet, require
from basicsr_clsd.errors import UserError, first_line

LARGEST_SIDE = 2048  # a size must have an upper end


def write_coreml_package(source: Source, half: bool, folder: Path) -> None:
    """Convert a network to an ML program, and write its package.

    Input ``lq`` is (1, C, h, w) in [0, 1], with h and w from 1 to 2048, output ``sr`` (1, C, h·s, w·s).

    Args:
        source: The network.
        half: Compute in fp16, as the neural engine does.
        folder: The package, which is made.

    Raises:
        UserError: coremltools is not installed, or cannot take the network.
    """
    require('devices', 'coremltools')
    free_size(source, 'a Core ML')
    finish_deferred()
    with quiet(), torch.no_grad():
        try:
            _package(source, half).save(str(folder))
        except Exception as error:  # coremltools' errors have no common base
            raise UserError(f'{source.arch}: cannot be exported to Core ML: {first_line(error)}') from error


def _package(source: Source, half: bool) -> Any:
    import coremltools  # noqa: PLC0415  (an extra)

    height, width = (coremltools.RangeDim(1, LARGEST_SIDE, default=side) for side in TRACED)
    image = coremltools.TensorType(name=INPUT, shape=(1, source.channels, height, width))
    return coremltools.convert(
        torch.jit.trace(source.module, torch.rand(source.shape(*TRACED))),
        inputs=[image],
        outputs=[coremltools.TensorType(name=OUTPUT)],
        convert_to='mlprogram',
        minimum_deployment_target=coremltools.target.iOS16,
        compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
    )
