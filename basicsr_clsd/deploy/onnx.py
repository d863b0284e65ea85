"""ONNX models for other programs: compared with the network, in half precision, in the order that programs ask for."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from basicsr_clsd.conversion.onnx import to_onnx
from basicsr_clsd.deploy.check import TOLERANCE, check
from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.inference.runtimes import OnnxruntimeModel
from basicsr_clsd.inference.torch_network import TorchNetwork

SIZES = ((1, 1, 1), (1, 7, 13), (2, 33, 20))  # batch, height and width


def onnx_model(network: TorchNetwork, opset: int) -> Any:
    """Convert a network, see :func:`~basicsr_clsd.conversion.onnx.to_onnx`, and compare the model with it.

    Raises:
        UserError: It has no form in ONNX, or the model computes something else.
    """
    model = to_onnx(network.source(), opset)
    check_onnx(model, network, TOLERANCE)
    return model


def check_onnx(model: Any, network: TorchNetwork, tolerance: float) -> float:
    """Compare a model's output with the network's, see :func:`~basicsr_clsd.deploy.check.check`."""
    return check(lambda: OnnxruntimeModel(model.SerializeToString()), network, 'ONNX', tolerance, SIZES)


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
