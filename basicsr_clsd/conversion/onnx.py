"""From a network to an ONNX model of free height, width and batch."""

import inspect
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from basicsr_clsd.conversion.source import TRACED, Source, free_size, require
from basicsr_clsd.errors import UserError, first_line

OPSET = 20
INPUT, OUTPUT = 'lq', 'sr'


def to_onnx(source: Source, opset: int = OPSET) -> Any:
    """Convert a network to an ``onnx.ModelProto``.

    Its input ``lq`` is (N, C, h, w), RGB or luma in [0, 1], its output ``sr`` (N, C, h·s, w·s), unclipped; N, h and w
    are free.
    The mean shift and the scaling to 255 are inside.

    Raises:
        UserError: The network's operators have no form in ONNX, or it works for one size of image alone.
    """
    require('deploy', 'onnx')
    import onnx  # noqa: PLC0415  (an extra)

    free_size(source, 'an ONNX')
    axes = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in (INPUT, OUTPUT)}
    options: dict[str, Any] = {'input_names': [INPUT], 'output_names': [OUTPUT], 'dynamic_axes': axes}
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        options['dynamo'] = False  # the other exporter needs onnxscript, and knows fewer architectures' sizes as free
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch: what else it exports by; sizes that it takes for constants
            path = str(Path(folder, 'network.onnx'))
            image = torch.rand(source.shape(*TRACED))
            torch.onnx.export(source.module, (image,), path, opset_version=opset, **options)
            return onnx.load(path)
    except Exception as error:  # torch's errors of this kind have no common base
        raise UserError(f'{source.arch}: cannot be exported to ONNX (opset {opset}): {first_line(error)}') from error
