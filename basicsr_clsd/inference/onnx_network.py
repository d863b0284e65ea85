"""An ONNX file, run by onnxruntime or OpenVINO."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.inference.network import OUTPUT_TILE
from basicsr_clsd.inference.runtimes import ONNXRUNTIME, OPENVINO, OnnxruntimeModel, OpenvinoModel, require_runtime
from basicsr_clsd.networks.check import LUMA, RGB

TRIAL_SIDE = 32
IMAGE_AXES = 4
TYPES = {1: np.float32, 10: np.float16}  # by ONNX's numbers
RECEPTIVE_FIELD = 'receptive_field'  # in the file's metadata


class OnnxNetwork:
    """A network in an ONNX file; see :class:`~basicsr_clsd.inference.network.Network`.

    It has one input (N, C, h, w) in [0, 1], RGB or luma, and the upscaled image is its first output.

    Args:
        path: The file.
        scale: Super-resolution factor; None: found out.
        channels: 3, or 1 for luma; None: what the file's input has.
        gpu: Use CUDA if onnxruntime has it.
        runtime: ``onnxruntime`` or ``openvino``.
        precision: Of OpenVINO: ``fp32`` or ``bf16``.

    Raises:
        UserError: The runtime is not installed, the file cannot be read, or its network does not upscale by ``scale``.
    """

    arch = 'ONNX'
    window = 1

    def __init__(  # noqa: PLR0913
        self,
        path: str | Path,
        scale: int | None = None,
        channels: int | None = 3,
        gpu: bool = False,
        runtime: str = ONNXRUNTIME,
        precision: str = 'fp32',
    ) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise UserError(f'{path}: no such file')
        require_runtime(runtime)
        try:
            by_openvino = runtime == OPENVINO
            self._run = OpenvinoModel(self.path, precision) if by_openvino else OnnxruntimeModel(self.path, gpu)
            model = self._model()
        except RuntimeError as error:
            raise UserError(f'{self.path}: not an ONNX file that can be run: {first_line(error)}') from error
        self.device = torch.device('cuda' if self._run.on_gpu else 'cpu')
        image = self._input(model)
        sides = [place.dim_param or place.dim_value for place in image.type.tensor_type.shape.dim]
        if any(isinstance(side, int) and side for side in sides[2:]):
            shown = ' x '.join(map(str, sides[2:]))
            raise UserError(f'{path}: takes images of {shown} pixels alone; export it with free height and width')
        self._type = TYPES[image.type.tensor_type.elem_type]
        self.channels = channels or (LUMA if sides[1] == LUMA else RGB)
        self.scale = self._try(scale, self.channels)
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        told = self.metadata.get(RECEPTIVE_FIELD, '')
        self.receptive_field = int(told) if told.isdecimal() else None
        self.tile = math.ceil(OUTPUT_TILE / self.scale)

    def _model(self) -> Any:
        import onnx  # noqa: PLC0415  (an extra)

        return onnx.load(str(self.path), load_external_data=False)

    def _input(self, model: Any) -> Any:
        """The image among the model's inputs, some of whose files list their weights there."""
        weights = {weight.name for weight in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        tensors = [value.type.tensor_type for value in inputs]
        if len(inputs) != 1 or len(tensors[0].shape.dim) != IMAGE_AXES or tensors[0].elem_type not in TYPES:
            shown = ', '.join(f'{value.name} of {len(value.type.tensor_type.shape.dim)} axes' for value in inputs)
            raise UserError(f'{self.path}: its input is no image of (N, C, h, w) floating-point values but {shown}')
        return inputs[0]

    def _try(self, scale: int | None, channels: int) -> int:
        try:
            size = self.upscale(torch.zeros(1, channels, TRIAL_SIDE, TRIAL_SIDE)).shape
        except RuntimeError as error:
            raise UserError(f'{self.path}: cannot upscale {channels} channels: {first_line(error)}') from error
        found = size[-1] // TRIAL_SIDE if scale is None else scale
        if size != (1, channels, TRIAL_SIDE * found, TRIAL_SIDE * found):
            made = ' x '.join(map(str, size[1:]))
            wanted = 'a larger image' if scale is None else f'scale {scale}'
            raise UserError(f'{self.path}: makes {made} of {channels} x {TRIAL_SIDE} x {TRIAL_SIDE}, not {wanted}')
        return found

    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w) in [0, 1] to (N, C, h·s, w·s), float32, unclipped.

        Raises:
            RuntimeError: onnxruntime's error; one of memory says so.
        """
        return torch.from_numpy(np.asarray(self._run(lq.numpy().astype(self._type)), np.float32))

    @property
    def parameters(self) -> int:
        """Values of all that is stored in the file: weights, biases, and the few constants beside them."""
        return sum(math.prod(weight.dims) for weight in self._model().graph.initializer)

    def macs(self, shape: tuple[int, ...]) -> int | None:
        """Multiply-accumulates of convolutions and matrix products for an input of this shape; None: not known."""
        import onnx  # noqa: PLC0415  (an extra)

        model = self._model()
        image = self._input(model)
        for place, side in zip(image.type.tensor_type.shape.dim, shape, strict=True):
            place.dim_value = side
        del model.graph.value_info[:], model.graph.output[0].type.tensor_type.shape.dim[:]
        try:
            graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except onnx.shape_inference.InferenceError:
            return None
        shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
        for value in [*graph.input, *graph.value_info, *graph.output]:
            shapes[value.name] = tuple(place.dim_value for place in value.type.tensor_type.shape.dim)
        try:
            return sum(_macs(node, shapes) for node in graph.node)
        except (KeyError, IndexError):  # a shape that cannot be inferred
            return None


# Where the weights stand among a node's inputs.
PRODUCTS = {'Conv': 1, 'FusedConv': 1, 'ConvInteger': 1, 'QLinearConv': 3, 'MatMul': 1, 'Gemm': 1, 'MatMulInteger': 1}


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == 'ConvTranspose':
        channels, *kernel = shapes[node.input[1]][1:]
        return math.prod(shapes[node.input[0]]) * channels * math.prod(kernel)
    if node.op_type not in PRODUCTS:
        return 0
    output, weights = shapes[node.output[0]], shapes[node.input[PRODUCTS[node.op_type]]]
    if 0 in output or not output:
        raise KeyError(node.output[0])
    if 'Conv' in node.op_type:
        return math.prod(output) * math.prod(weights[1:])
    inner = shapes[node.input[0]]
    transposed = any(attribute.name == 'transA' and attribute.i for attribute in node.attribute)
    return math.prod(output) * (inner[-2] if transposed else inner[-1])
