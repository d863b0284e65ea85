from copy import deepcopy

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from torch import nn

from basicsr_clsd.networks.check import placed
from basicsr_clsd.networks.upsampling import BlockwiseUpsample

CPU = torch.device('cpu')
LQ = torch.rand(2, 3, 7, 10).to(memory_format=torch.channels_last)


def pair(network):
    """A network as it is and one of the same weights that upsamples in blocks, both in channels_last."""
    plain = deepcopy(network).to(memory_format=torch.channels_last)
    blockwise = placed(network, CPU, torch.channels_last)
    assert list(blockwise.state_dict()) == list(plain.state_dict())
    assert [type(module) for module in blockwise.modules()].count(BlockwiseUpsample) == 1
    return plain, blockwise


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('scale', [2, 3, 4, 8])
def test_images_are_the_same_in_every_bit_and_gradients_but_for_rounding(scale, precision):
    torch.manual_seed(0)
    found = []
    for network in pair(EDSR(3, 3, 8, 1, scale)):
        with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):
            image = network(LQ)
        image.float().square().mean().backward()
        found.append((image, [parameter.grad for parameter in network.parameters()]))
    (plain, theirs), (blockwise, ours) = found
    assert torch.equal(plain, blockwise) and blockwise.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, theirs, rtol=0.02 if precision == 'bf16' else 1e-4, atol=1e-6)


@pytest.mark.parametrize('kind', ['register_forward_hook', 'register_full_backward_hook'])
def test_what_is_looked_at_has_its_channels_in_their_order(kind):
    seen = []
    for network in pair(RCAN(3, 3, 8, 1, 1, 4, 4)):
        getattr(network.get_submodule('upsample.0'), kind)(lambda *given: seen.append(given[-1]))
        network(LQ).square().sum().backward()
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize('format', [torch.contiguous_format, torch.channels_last])
def test_any_sequence_in_any_format(format):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 1, bias=False), nn.PixelShuffle(2), nn.Conv2d(3, 4, 1)]
    plain, blockwise = pair(nn.Sequential(nn.Sequential(*layers), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.PixelShuffle(2)))
    image = LQ.to(memory_format=format)
    assert torch.equal(plain(image), blockwise(image))
