"""Blocks without the product with 1: the network they are of, bit for bit, with fewer operators."""

from copy import deepcopy

import pytest
import torch
from basicsr.archs import build_network
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr_clsd.archs import WithHeads
from basicsr_clsd.networks.check import placed

CPU = torch.device('cpu')
LQ = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
RGB = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'upscale': 2}
BLOCKS = 3
SECTIONS = {
    'EDSR': {'type': 'EDSR', **RGB, 'num_block': BLOCKS},
    'MSRResNet': {'type': 'MSRResNet', **RGB, 'num_block': BLOCKS},
    'RCAN': {'type': 'RCAN', **RGB, 'num_group': 1, 'num_block': BLOCKS},
}


class Products(TorchDispatchMode):
    """Counts the products."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.mul.Tensor
        return func(*args, **(kwargs or {}))


def found(network, precision):
    """Outputs, gradients, and how many products they took."""
    with Products() as products:
        with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):
            output = network(LQ)
        images = torch.stack([output[0], *output[1]] if isinstance(output, tuple) else [output])
        images.float().sum().backward()
    return images, [parameter.grad for parameter in network.parameters()], products.count


def pair(network):
    """A network as it is and as it is placed on the CPU."""
    plain = deepcopy(network)
    mine = placed(network, CPU, torch.contiguous_format)
    assert list(mine.state_dict()) == list(plain.state_dict())
    return plain, mine


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('heads', [False, True], ids=['bare', 'with heads'])
@pytest.mark.parametrize('arch', SECTIONS)
def test_bits_are_those_of_the_arch(arch, heads, precision):
    section = SECTIONS[arch]
    network = WithHeads(section, {'evenly': 1}, {'num_block': 1, 'num_feat': 16}) if heads else build_network(section)
    (images, gradients, before), (same, equal, after) = (found(network, precision) for network in pair(network))
    assert torch.equal(images, same) and all(map(torch.equal, gradients, equal))
    assert before - after == 2 * (BLOCKS + heads)  # forward and backward


@pytest.mark.parametrize('arch', ['EDSR', 'RCAN'])
def test_other_factors_are_kept(arch):
    networks = pair(build_network({**SECTIONS[arch], 'res_scale': 0.5}))
    (images, _, before), (same, _, after) = (found(network, 'fp32') for network in networks)
    assert torch.equal(images, same) and before == after


def test_hooks_of_blocks_are_called():
    network, called = build_network(SECTIONS['EDSR']), []
    network.get_submodule('body.1').register_forward_hook(lambda *_: called.append(1))
    placed(network, CPU, torch.contiguous_format)(LQ)
    assert called == [1]
