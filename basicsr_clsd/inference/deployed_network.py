"""A network of weights, run by another runtime than torch."""

import torch
from torch import Tensor

from basicsr_clsd.conversion.ncnn import to_ncnn
from basicsr_clsd.conversion.onnx import to_onnx
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.runtimes import NCNN, ONNXRUNTIME, NcnnNetwork, OnnxruntimeModel, OpenvinoModel, Run
from basicsr_clsd.inference.torch_network import CPU, TorchNetwork


class DeployedNetwork:
    """A network, converted in memory; see :class:`~basicsr_clsd.inference.network.Network`.

    Args:
        network: What is converted, in fp32.
        runtime: ``onnxruntime``, ``openvino`` or ``ncnn``, which is installed.
        precision: See :data:`~basicsr_clsd.inference.runtimes.PRECISIONS`.

    Raises:
        UserError: The runtime cannot take it; the operator is named.
    """

    window, device = 1, CPU

    def __init__(self, network: TorchNetwork, runtime: str, precision: str) -> None:
        self.arch, self.scale, self.channels = network.arch, network.scale, network.channels
        self.receptive_field, self.tile, self.parameters = network.receptive_field, network.tile, network.parameters
        self.macs = network.macs
        try:
            self._run = _converted(network, runtime, precision)
        except RuntimeError as error:
            raise UserError(f'{network.arch}: {runtime} cannot run it: {error}') from error

    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, C, h, w) in [0, 1] to (N, C, h·s, w·s), float32, unclipped."""
        return torch.from_numpy(self._run(lq.numpy()))


def _converted(network: TorchNetwork, runtime: str, precision: str) -> Run:
    source = network.source()
    if runtime == NCNN:
        return NcnnNetwork(to_ncnn(source))
    model = to_onnx(source).SerializeToString()
    return OnnxruntimeModel(model) if runtime == ONNXRUNTIME else OpenvinoModel(model, precision)
