"""EDSR's tail as one convolution: the numbers of its modules, up to the border."""

import pytest
import torch
from helpers.students import student

from basicsr_clsd.inference import merged_tail
from basicsr_clsd.inference.merged_tail import MergedTail
from basicsr_clsd.networks.fused import fused

SIZES = ((1, 1), (2, 5), (3, 3), (7, 13), (40, 33))


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('band', [20, merged_tail.BAND])
def test_numbers_are_those_of_the_modules(monkeypatch, scale, band):
    monkeypatch.setattr(merged_tail, 'BAND', band)
    network = student(0, upscale=scale)
    running = fused(network, 'fp32', torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    if running is network:
        pytest.skip('this torch has no fused convolutions')
    tail = MergedTail(network, running, scale)
    for size in SIZES:
        feature = torch.randn(2, 8, *size, generator=torch.Generator().manual_seed(0))
        expected = network.conv_last(network.upsample(feature))
        torch.testing.assert_close(tail(feature), expected, rtol=1e-5, atol=1e-6)
