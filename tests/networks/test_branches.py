"""ECBSR with its branches merged: the bits of BasicSR's own."""

import pytest
import torch
from basicsr.archs.ecbsr_arch import ECB, ECBSR

from basicsr_clsd.networks.branches import merge_branches


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('scale', [2, 3])
def test_bits_stay(channels, scale):
    torch.manual_seed(0)
    network = ECBSR(channels, channels, 2, 8, with_idt=True, act_type='prelu', scale=scale).eval()
    lq = torch.rand(2, channels, 9, 7)
    expected = network(lq)
    merged = merge_branches(network)
    assert not any(isinstance(module, ECB) for module in merged.modules())
    assert torch.equal(merged(lq), expected)


def test_other_networks_stay():
    network = torch.nn.Conv2d(3, 3, 3)
    assert merge_branches(network) is network
