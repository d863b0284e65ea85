"""What EDSR a state dict is of: scale, width and depth, read off its weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor

from basicsr_clsd.networks.edsr_pytorch import has_edsr_pytorch_names, renamed

RGB_CHANNELS = 3
STAGES = {4: 2, 9: 3}  # channels that a stage of the upsampler makes of one: its factor
PAPERS_LARGE = (32, 256)  # blocks and channels of the paper's EDSR, which scales its residual branches
PAPERS_RES_SCALE = 0.1


def edsr_arguments(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The arguments of BasicSR's ``EDSR`` that weights load into strictly; None if they are not an EDSR's for RGB.

    ``res_scale`` leaves no trace in the weights: it is 0.1 for 32 blocks of 256 channels, as in the paper (Lim et al.,
    CVPRW 2017, Table 1), else 1.

    Args:
        weights: Under the names of BasicSR or of EDSR-PyTorch.
    """
    if has_edsr_pytorch_names(weights):
        weights = renamed(weights)
    first = weights.get('conv_first.weight')
    if first is None or first.ndim == 0:
        return None
    width = first.shape[0]
    blocks = len({name.split('.')[1] for name in weights if name.startswith('body.')})
    stages = [
        value.shape[0] / width for name, value in weights.items() if name.startswith('upsample.') and value.ndim > 1
    ]
    scale = math.prod(STAGES.get(int(stage), 0) for stage in stages)
    if not blocks or scale <= 1:
        return None
    arguments = {
        'num_in_ch': RGB_CHANNELS,
        'num_out_ch': RGB_CHANNELS,
        'num_feat': width,
        'num_block': blocks,
        'upscale': scale,
        'res_scale': PAPERS_RES_SCALE if (blocks, width) == PAPERS_LARGE else 1,
    }
    try:
        with torch.device('meta'):
            expected = EDSR(**arguments).state_dict()
    except ValueError:  # a scale that its upsampler does not have
        return None
    same = {name: value.shape for name, value in weights.items()} == {k: v.shape for k, v in expected.items()}
    return arguments if same else None
