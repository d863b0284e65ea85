"""Weights of EDSR under the names of EDSR-PyTorch, the code of the paper (Lim et al., CVPRW 2017) in PyTorch."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn

from basicsr_clsd.errors import UserError

# There the trunk is one list: its blocks, `body.N.body.0` and `.2` their convolutions, then the convolution after them.
BLOCKS = re.compile(r'body\.(\d+)\.body\.([02])\.(weight|bias)')
AFTER_BODY = re.compile(r'body\.\d+\.(weight|bias)')
ENDS = (
    ('head.0.', 'conv_first.'),
    ('tail.0.', 'upsample.'),
    ('tail.1.', 'conv_last.'),
)
MEAN_SHIFTS = {'sub_mean.': -1, 'add_mean.': 1}  # convolutions 1x1 with the identity and a bias of this times the mean
TOLERANCE = 1e-2


def with_basicsr_names(weights: Mapping[str, Tensor], network: nn.Module, path: str | Path) -> Mapping[str, Tensor]:
    """Rename the weights of EDSR-PyTorch as BasicSR's ``EDSR`` has them; other weights are returned as they are.

    Args:
        weights: By name; images are scaled to 255 in both.
        network: What they are for.
        path: Their file, for errors.

    Raises:
        UserError: They belong to a network that subtracts another mean, which BasicSR's has no weights for.
    """
    if not isinstance(network, EDSR) or not {'head.0.weight', 'tail.1.weight'} <= weights.keys():
        return weights
    renamed = {}
    for name, value in weights.items():
        shift = next((start for start in MEAN_SHIFTS if name.startswith(start)), None)
        if shift is None:
            renamed[_basicsr_name(name)] = value
        else:
            _check_mean_shift(name, value, MEAN_SHIFTS[shift], network, path)
    return renamed


def _basicsr_name(name: str) -> str:
    if block := BLOCKS.fullmatch(name):
        return f'body.{block[1]}.conv{int(block[2]) // 2 + 1}.{block[3]}'
    if after := AFTER_BODY.fullmatch(name):
        return f'conv_after_body.{after[1]}'
    for theirs, ours in ENDS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _check_mean_shift(name: str, value: Tensor, sign: int, network: EDSR, path: str | Path) -> None:
    if name.endswith('bias'):
        expected = sign * network.img_range * network.mean.flatten()
    else:
        expected = torch.eye(len(value)).view(len(value), -1, 1, 1)
    if value.shape != expected.shape or not torch.allclose(value.cpu(), expected, rtol=0, atol=TOLERANCE):
        shown = [round(number, 2) for number in value.flatten().tolist()]
        wanted = [round(number, 2) for number in expected.flatten().tolist()]
        raise UserError(f'{path}: {name} is {shown}, but {type(network).__name__} shifts by {wanted}')
