"""A network of luma."""

from pathlib import Path

import pytest
import torch
from basicsr.archs.ecbsr_arch import ECBSR

from basicsr_clsd.runtime.files import save

ARGUMENTS = {'num_in_ch': 1, 'num_out_ch': 1, 'num_block': 2, 'num_channel': 8, 'with_idt': False, 'act_type': 'prelu'}


def network() -> ECBSR:
    torch.manual_seed(0)
    return ECBSR(scale=2, **ARGUMENTS).eval().requires_grad_(False)


@pytest.fixture(scope='module')
def luma_model(tmp_path_factory, write_yaml) -> Path:
    """Its weights, in the folder of their experiment."""
    folder = tmp_path_factory.mktemp('runs') / 'luma'
    (folder / 'models').mkdir(parents=True)
    write_yaml(
        folder / 'luma.yml', {'name': 'luma', 'scale': 2, 'network_g': {'type': 'ECBSR', **ARGUMENTS, 'scale': 2}}
    )
    save({'params': network().state_dict()}, folder / 'models' / 'net_g_latest.pth')
    return folder / 'models' / 'net_g_latest.pth'
