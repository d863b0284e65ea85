"""Weights of RCAN under the names of its authors' code (Zhang et al., ECCV 2018), which other programs know."""

import re

import torch
from basicsr.archs.rcan_arch import RCAN
from torch import Tensor

from basicsr_clsd.errors import UserError

RANGE = 255  # of the authors' images; weights do not tell it
# What each name begins with, and what stands there in the authors' code; {groups}, {blocks}: how many there are.
NAMES = (
    (r'conv_first\.', 'head.0.'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.1\.', r'body.\1.body.\2.body.3.conv_du.0.'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.3\.', r'body.\1.body.\2.body.3.conv_du.2.'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.', r'body.\1.body.\2.body.'),
    (r'body\.(\d+)\.conv\.', r'body.\1.body.{blocks}.'),
    (r'conv_after_body\.', 'body.{groups}.'),
    (r'upsample\.', 'tail.0.'),
    (r'conv_last\.', 'tail.1.'),
)


def with_official_names(network: RCAN) -> dict[str, Tensor]:
    """The weights of BasicSR's RCAN under its authors' names, with the shifts by the mean as convolutions 1x1.

    Raises:
        UserError: Its residuals are scaled, or its images not to 255, which the authors' code has no room for.
    """
    groups: list = list(network.body)
    blocks = list(groups[0].residual_group)
    if any(block.res_scale != 1 for group in groups for block in group.residual_group) or network.img_range != RANGE:
        raise UserError(f'RCAN: its authors have res_scale 1 and img_range {RANGE} alone')
    weights = {_official(name, len(groups), len(blocks)): value for name, value in network.state_dict().items()}
    mean = RANGE * network.mean.flatten().cpu()
    for name, sign in (('sub_mean', -1), ('add_mean', 1)):
        weights |= {f'{name}.weight': torch.eye(len(mean)).view(len(mean), -1, 1, 1), f'{name}.bias': sign * mean}
    return weights


def _official(name: str, groups: int, blocks: int) -> str:
    for pattern, there in NAMES:
        replaced, count = re.subn(f'^{pattern}', there, name)
        if count:
            return replaced.replace('{groups}', str(groups)).replace('{blocks}', str(blocks))
    return name
