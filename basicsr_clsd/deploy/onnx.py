"""From a network to an ONNX model of free height, width and batch, checked against the network."""

import importlib.util
import inspect
import tempfile
import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basicsr_clsd import registry
from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.check import first_output

OPSET = 20
INPUT, OUTPUT = 'lq', 'sr'
TRACED = (1, 24, 20)  # batch, height and width
CHECKED = ((1, 1, 1), (1, 7, 13), (2, 33, 20))
TOLERANCE = 1e-5  # in [0, 1]: a 400th of a step of 8 bits
HALF_TOLERANCE = 2 / 255


def require() -> None:
    """Raise a :class:`UserError` if what ONNX files need is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ('onnx', 'onnxruntime')):
        raise UserError("onnx and onnxruntime are not installed; pip install 'basicsr-clsd[deploy]'")


def onnx_model(network: TorchNetwork, opset: int = OPSET) -> Any:
    """Export a network as an ``onnx.ModelProto``.

    Its input ``lq`` is (N, C, h, w), RGB or luma in [0, 1], its output ``sr`` (N, C, h·s, w·s), unclipped; N, h and w
    are free.
    The mean shift and the scaling to 255 are inside.

    Raises:
        UserError: The network's operators have no form in ONNX, or it works for one size of image alone.
    """
    import onnx  # noqa: PLC0415  (an extra)

    if network.window > 1:
        raise UserError(f'{network.arch}: attends within windows, which an ONNX model has for one size of image alone')
    axes = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in (INPUT, OUTPUT)}
    options: dict[str, Any] = {'input_names': [INPUT], 'output_names': [OUTPUT], 'dynamic_axes': axes}
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        options['dynamo'] = False  # the other exporter needs onnxscript, and knows fewer architectures' sizes as free
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch: what else it exports by; sizes that it takes for constants
            path = str(Path(folder, 'network.onnx'))
            torch.onnx.export(
                plain(network), (torch.rand(shape(network, *TRACED)),), path, opset_version=opset, **options
            )
            model = onnx.load(path)
    except Exception as error:  # torch's errors of this kind have no common base
        raise UserError(f'{network.arch}: cannot be exported to ONNX (opset {opset}): {first_line(error)}') from error
    check(model, network, TOLERANCE)
    return model


def shape(network: TorchNetwork, batch: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Of images for a network."""
    return batch, network.channels, height, width


def plain(network: TorchNetwork) -> nn.Module:
    """The network as its arch builds it, on the CPU, without what keeps its ends in full precision."""
    module = registry.build('archs', network.section, 'network_g')
    module.load_state_dict(deepcopy(network.module.state_dict()))
    return _Upscaling(module.cpu().eval().requires_grad_(False))


class _Upscaling(nn.Module):
    """A network of one input and one output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w)."""
        return first_output(self.network(lq))


def check(model: Any, network: TorchNetwork, tolerance: float) -> float:
    """Run a model on images of several sizes; return the largest difference to the network's output.

    Raises:
        UserError: It cannot be run, or differs by more than ``tolerance``.
    """
    run, torch_network, worst = runner(model), plain(network), 0.0
    draw = torch.Generator().manual_seed(0)
    for batch, height, width in CHECKED:
        lq = torch.rand(shape(network, batch, height, width), generator=draw)
        size = f'{width}x{height}'
        try:
            with torch.no_grad():
                expected = torch_network(lq).numpy()
            found = run(lq.numpy())
        except RuntimeError as error:
            raise UserError(f'{network.arch}: its ONNX model does not run on {size}: {first_line(error)}') from error
        if found.shape != expected.shape or not (difference := float(np.abs(found - expected).max())) <= tolerance:
            raise UserError(f'{network.arch}: its ONNX model makes another image of {size} than the network')
        worst = max(worst, difference)
    return worst


def runner(model: Any) -> Any:
    """A function that runs a model on an array (N, C, h, w), float32; what goes wrong is a ``RuntimeError``."""
    import onnxruntime  # noqa: PLC0415  (an extra)

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=['CPUExecutionProvider'])
    except Exception as error:  # onnxruntime's errors have no common base
        raise RuntimeError(str(error)) from error

    def run(lq: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(session.run(None, {INPUT: lq})[0])
        except Exception as error:  # see above
            raise RuntimeError(str(error)) from error

    return run


def ends(model: Any) -> tuple[list[str], list[str]]:
    """Names of the nodes up to the first convolution, and from the last one on."""
    nodes = list(model.graph.node)
    places = [place for place, node in enumerate(nodes) if node.op_type == 'Conv']
    if not places:
        return [], []
    return [node.name for node in nodes[: places[0] + 1]], [node.name for node in nodes[places[-1] :]]


def in_half_precision(model: Any) -> Any:
    """The model with weights and features in fp16, but the first and the last convolution, input and output."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415  (an extra)

    first, last = ends(model)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of onnxruntime, on weights smaller than fp16 has, which become 0
        return convert_float_to_float16(deepcopy(model), keep_io_types=True, node_block_list=first + last)


def finish(model: Any, header: Mapping[str, str]) -> bytes:
    """The content of a model's file: checked, with its nodes in an order in which each comes after its inputs.

    The converters to fp16 and int8 append nodes at the end; onnxruntime sorts them itself, other programs refuse them.

    Args:
        model: Changed in place.
        header: Texts for its metadata, in place of those that are there.

    Raises:
        UserError: ONNX's own checker finds a fault.
    """
    import onnx  # noqa: PLC0415  (an extra)
    from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415  (an extra)

    ONNXModel(model).topological_sort()
    onnx.helper.set_model_props(model, dict(header))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f'the exported model is not valid ONNX: {first_line(error)}') from error
    return model.SerializeToString()
