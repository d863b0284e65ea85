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
BASICSR_BLOCKS = re.compile(r'body\.(\d+)\.conv([12])\.(weight|bias)')
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
    if not isinstance(network, EDSR) or not has_edsr_pytorch_names(weights):
        return weights
    for name, value in weights.items():
        shift = _mean_shift(name)
        if shift is not None:
            _check_mean_shift(name, value, MEAN_SHIFTS[shift], network, path)
    return renamed(weights)


def has_edsr_pytorch_names(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are those of EDSR-PyTorch's EDSR."""
    return {'head.0.weight', 'tail.1.weight'} <= weights.keys()


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EDSR-PyTorch's weights under BasicSR's names, whatever their values; the shifts by the mean are left out."""
    return {_basicsr_name(name): value for name, value in weights.items() if _mean_shift(name) is None}


def with_edsr_pytorch_names(network: EDSR) -> dict[str, Tensor]:
    """The weights of BasicSR's EDSR under the names of EDSR-PyTorch, with the shifts by the mean as convolutions 1x1.

    EDSR-PyTorch has the factor on the residual branches (its ``--res_scale``) as an option, as BasicSR has.
    """
    weights = {_edsr_pytorch_name(name, len(network.body)): value for name, value in network.state_dict().items()}
    mean = network.img_range * network.mean.flatten().cpu()
    for start, sign in MEAN_SHIFTS.items():
        weights[f'{start}weight'] = torch.eye(len(mean)).view(len(mean), -1, 1, 1)
        weights[f'{start}bias'] = sign * mean
    return weights


def _mean_shift(name: str) -> str | None:
    return next((start for start in MEAN_SHIFTS if name.startswith(start)), None)


def _basicsr_name(name: str) -> str:
    if block := BLOCKS.fullmatch(name):
        return f'body.{block[1]}.conv{int(block[2]) // 2 + 1}.{block[3]}'
    if after := AFTER_BODY.fullmatch(name):
        return f'conv_after_body.{after[1]}'
    for theirs, ours in ENDS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _edsr_pytorch_name(name: str, blocks: int) -> str:
    if block := BASICSR_BLOCKS.fullmatch(name):
        return f'body.{block[1]}.body.{2 * int(block[2]) - 2}.{block[3]}'
    for theirs, ours in (*ENDS, (f'body.{blocks}.', 'conv_after_body.')):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
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
