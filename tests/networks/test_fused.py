"""Fused convolutions: the numbers of the network that they are made from, or that network itself."""

import pytest
import torch
from basicsr.archs import build_network
from torch import nn

from basicsr_clsd.archs.full_precision import FullPrecisionConv2d
from basicsr_clsd.networks import fused as module
from basicsr_clsd.networks.fused import FusedConv2d, add_convolved, convolve_relu, fused
from basicsr_clsd.networks.precision import keep_ends_fp32

RGB = {'num_in_ch': 3, 'num_out_ch': 3}
ECB = {'num_block': 2, 'num_channel': 8, 'scale': 2}
SECTIONS = {
    'EDSR': {'type': 'EDSR', **RGB, 'num_feat': 8, 'num_block': 2, 'upscale': 2, 'res_scale': 0.5},
    'MSRResNet': {'type': 'MSRResNet', **RGB, 'num_feat': 8, 'num_block': 1, 'upscale': 2},
    'RCAN': {'type': 'RCAN', **RGB, 'num_feat': 16, 'num_group': 1, 'num_block': 1, 'upscale': 2},
    'SRVGGNetCompact': {'type': 'SRVGGNetCompact', **RGB, 'num_feat': 8, 'num_conv': 2, 'upscale': 2},
    'ECBSR': {'type': 'ECBSR', **RGB, **ECB, 'with_idt': True, 'act_type': 'prelu'},
    'ECBSR of luma': {'type': 'ECBSR', 'num_in_ch': 1, 'num_out_ch': 1, **ECB, 'with_idt': False, 'act_type': 'linear'},
}
SHAPES = ((1, 1, 1), (2, 7, 13), (1, 40, 33))
pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in module.OPERATORS),
    reason='this torch has no fused convolutions',
)


def images(section, batch=1, height=32, width=32):
    draw = torch.Generator().manual_seed(0)
    return torch.rand(batch, section['num_in_ch'], height, width, generator=draw)


def network_of(section, batch=None):
    torch.manual_seed(0)
    network = build_network(dict(section)).eval().requires_grad_(False)
    for value in network.parameters():  # BasicSR's own initial weights are so small that little would be seen
        value.mul_(2)
    with keep_ends_fp32(network):
        network(images(section))
    return network


@pytest.mark.parametrize('arch', SECTIONS)
def test_output_is_that_of_the_network(arch):
    section, network = SECTIONS[arch], network_of(SECTIONS[arch])
    made = fused(network, 'fp32', images(section))
    kinds = {type(part) for part in made.modules()}
    assert FusedConv2d in kinds and not kinds & {nn.Conv2d, FullPrecisionConv2d}
    assert not any(isinstance(part, FusedConv2d) for part in network.modules())
    for shape in SHAPES:
        lq = images(section, *shape)
        torch.testing.assert_close(made(lq), network(lq), rtol=1e-5, atol=1e-5)


def test_bf16_keeps_the_ends():
    section = SECTIONS['EDSR']
    made = fused(network_of(section), 'bf16', images(section))
    kinds = {name: part.dtype for name, part in made.named_modules() if isinstance(part, FusedConv2d)}
    assert kinds.pop('conv_first') == kinds.pop('conv_last') == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}


@pytest.mark.parametrize('factor', [1, 0.5])
def test_what_follows_a_convolution(factor):
    convolution = nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False)
    lq, total = torch.randn(2, 8, 9, 7), torch.randn(2, 8, 9, 7).to(memory_format=torch.channels_last)
    made, sums = FusedConv2d(convolution, torch.float32), total.clone()
    torch.testing.assert_close(convolve_relu(made, lq), convolution(lq).relu(), rtol=0, atol=1e-5)
    assert add_convolved(sums, made, lq, factor) is sums
    torch.testing.assert_close(sums, total + factor * convolution(lq), rtol=0, atol=1e-5)


class Reader(nn.Module):
    """Looks into its convolution, which only a plain one allows."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lq):
        return self.convolution(lq) * self.convolution.weight[0, 0, 0, 0]


def test_the_network_itself_where_fusing_is_not_possible(monkeypatch):
    section = SECTIONS['EDSR']
    for network in (Reader(), nn.Sequential(nn.Conv2d(3, 3, 3, padding='same'))):
        network.eval().requires_grad_(False)
        assert fused(network, 'fp32', images(section)) is network
    network = network_of(section)
    assert fused(network, 'fp16', images(section)) is network
    monkeypatch.setattr(module, 'OPERATORS', ('_no_such_operator',))
    assert fused(network, 'fp32', images(section)) is network
