"""Students with weights drawn at random, and their weights in the formats of other programs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR

ARGUMENTS = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 2}
MEAN = (0.4488, 0.4371, 0.4040)


def student(seed: int, **arguments: int) -> EDSR:
    torch.manual_seed(seed)
    return EDSR(**{**ARGUMENTS, **arguments}).eval().requires_grad_(False)


def edsr_pytorch_weights(network: EDSR) -> dict[str, torch.Tensor]:
    """A student's weights as EDSR-PyTorch would save them."""
    blocks = len(network.body)
    names = {'conv_first': 'head.0', 'conv_after_body': f'body.{blocks}', 'upsample': 'tail.0', 'conv_last': 'tail.1'}
    weights = {}
    for key, value in network.state_dict().items():
        start, rest = key.split('.', 1)
        if start == 'body':
            number, conv, kind = rest.split('.')
            weights[f'body.{number}.body.{0 if conv == "conv1" else 2}.{kind}'] = value
        else:
            weights[f'{names[start]}.{rest}'] = value
    for name, sign in (('sub_mean', -1), ('add_mean', 1)):
        weights[f'{name}.weight'] = torch.eye(3).view(3, 3, 1, 1)
        weights[f'{name}.bias'] = sign * 255 * torch.tensor(MEAN)
    return weights


def write_onnx(network: EDSR, path: Path, sides: tuple[str | int, str | int] = ('h', 'w'), blocks: int = 1) -> None:
    """A student at x2 as an ONNX file, node by node."""
    onnx = pytest.importorskip('onnx')
    nodes, weights = [], []

    def constant(name: str, value: Any) -> str:
        weights.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def conv(given: str, module: torch.nn.Module, name: str) -> str:
        values = [constant(f'{name}.{kind}', getattr(module, kind).detach().numpy()) for kind in ('weight', 'bias')]
        return node('Conv', [given, *values], name, pads=[1, 1, 1, 1])

    mean = constant('mean', np.array(MEAN).reshape(1, 3, 1, 1))
    level = constant('range', 255)
    shifted = node('Mul', [node('Sub', ['lq', mean], 'centred'), level], 'shifted')
    first = trunk = conv(shifted, network.conv_first, 'first')
    for number, block in enumerate(network.body):
        inner = node('Relu', [conv(trunk, block.conv1, f'{number}a')], f'{number}r')
        trunk = node('Add', [trunk, conv(inner, block.conv2, f'{number}b')], f'{number}s')
    trunk = node('Add', [conv(trunk, network.conv_after_body, 'after'), first], 'trunk')
    shuffled = node('DepthToSpace', [conv(trunk, network.upsample[0], 'up')], 'shuffled', blocksize=2, mode='CRD')
    node('Add', [node('Div', [conv(shuffled, network.conv_last, 'last'), level], 'unit'), mean], 'sr')
    value = onnx.helper.make_tensor_value_info
    image = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, 'edsr', [value('lq', image, [1, 3, *sides])], [value('sr', image, [1, 3, 'H', 'W'])], weights
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
