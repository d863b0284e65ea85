"""Where heads on any network start, what they compute, and that copies of it are of its kind."""

import copy
import gc
import shutil
import weakref

import pytest
import torch
import torch.nn.functional as F
from basicsr.archs.arch_util import pixel_unshuffle
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from basicsr.archs.swinir_arch import SwinIR
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from basicsr_clsd.archs import WithHeads
from basicsr_clsd.errors import UserError

RGB = {'num_in_ch': 3, 'num_out_ch': 3}
EDSR = {'type': 'EDSR', **RGB, 'num_feat': 4, 'upscale': 2}
RCAN = {'type': 'RCAN', **RGB, 'num_feat': 4, 'num_block': 2, 'squeeze_factor': 2, 'upscale': 2}
SWINIR = {'type': 'SwinIR', 'img_size': 8, 'window_size': 4, 'embed_dim': 8, 'num_heads': [2] * 6, 'mlp_ratio': 1}
SWINIR_2 = {**SWINIR, 'depths': [1, 1], 'drop_path_rate': 0, 'upscale': 2, 'upsampler': 'pixelshuffle'}
SRVGG = {'type': 'SRVGGNetCompact', 'num_feat': 4, 'upscale': 2}
ECBSR = {'type': 'ECBSR', 'num_block': 2, 'num_channel': 4, 'with_idt': False, 'act_type': 'prelu', 'scale': 2}
RRDB = {'type': 'RRDBNet', **RGB, 'num_feat': 4, 'num_block': 2, 'num_grow_ch': 2, 'scale': 2}
TINY = {'num_block': 1, 'num_feat': 4}


def build(student, taps, **changes):
    torch.manual_seed(0)
    return WithHeads(student, taps, **{'head': TINY, **changes})


def images(height=8, width=12, channels=3):
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ('student', 'count', 'taps', 'skip'),
    [
        ({**EDSR, 'num_block': 16}, 3, ['body.3', 'body.7', 'body.11'], 'body.0:input'),  # METHODS: after 4, 8 and 12
        ({**EDSR, 'num_block': 3}, 3, ['body.0', 'body.1', 'body.2'], 'body.0:input'),
        ({**EDSR, 'num_block': 5}, 1, ['body.2'], 'body.0:input'),
        ({**RCAN, 'num_group': 10}, 3, ['body.2', 'body.4', 'body.7'], 'body.0:input'),
        ({**SRVGG, 'num_conv': 16}, 3, ['body.9', 'body.17', 'body.25'], 'body.2:input'),  # after activations
        ({**SRVGG, 'num_conv': 4, 'act_type': 'relu'}, 2, ['body.5', 'body.7'], 'body.2:input'),
        (
            {**SWINIR, 'depths': [1] * 6, 'upscale': 2, 'upsampler': 'pixelshuffle'},
            3,
            ['layers.1', 'layers.2', 'layers.4'],
            'layers.0:input',
        ),
    ],
)
def test_evenly_cuts_the_trunk_between_its_blocks(student, count, taps, skip):
    heads = build(student, {'evenly': count}).heads
    assert list(heads.taps.taps) == taps
    assert list(heads.skip.taps) == [skip]


@pytest.mark.parametrize(
    ('written', 'meant'),
    [
        (['body.3-11/4'], ['body.3', 'body.7', 'body.11']),
        (['body.0-2', 'body.5:input'], ['body.0', 'body.1', 'body.2', 'body.5:input']),
        (['body.4-9/3.conv2'], ['body.4.conv2', 'body.7.conv2']),
        (['body.1-2:input'], ['body.1:input', 'body.2:input']),
        (['conv_first', 'body.3-3'], ['conv_first', 'body.3']),
        ([{'evenly': 1}, 'body.2'], ['body.7', 'body.2']),
    ],
)
def test_ranges_of_paths(written, meant):
    assert list(build({**EDSR, 'num_block': 16}, written).heads.taps.taps) == meant


def block(weights, name, x):
    return x + conv(weights, f'{name}.conv2', conv(weights, f'{name}.conv1', x).relu())


def conv(weights, name, x):
    weight = weights[f'{name}.weight']
    return F.conv2d(x, weight, weights[f'{name}.bias'], padding=weight.shape[-1] // 2)


def head_by_hand(net, number, feature, skip, img_range, added):
    """A head of one block at twice the size."""
    weights, name = net.state_dict(), f'heads.{number}'
    if f'{name}.conv_first.weight' in weights:
        feature = conv(weights, f'{name}.conv_first', feature)
    if skip is not None and f'{name}.conv_skip.weight' in weights:
        skip = conv(weights, f'{name}.conv_skip', skip)
    refined = conv(weights, f'{name}.conv_after_body', block(weights, f'{name}.body.0', feature))
    refined = refined if skip is None else refined + skip
    large = F.pixel_shuffle(conv(weights, f'{name}.upsample.0', refined), 2)
    return conv(weights, f'{name}.conv_last', large) / img_range + added


@pytest.mark.parametrize('width', [4, 6])
@pytest.mark.parametrize('skip', ['trunk', 'body.1:input', 'none'])
def test_heads_of_rcan_against_their_structure_by_hand(width, skip):
    net = build({**RCAN, 'num_group': 2}, ['body.0'], head={'num_block': 1, 'num_feat': width}, global_skip=skip)
    assert ('heads.0.conv_first.weight' in net.state_dict()) == (width != 4)
    x = images()
    mean = torch.tensor((0.4488, 0.4371, 0.4040)).view(1, 3, 1, 1)
    first = net.student.conv_first((x - mean) * 255)
    tapped = net.student.body[0](first)
    added = {'trunk': first, 'body.1:input': tapped, 'none': None}[skip]
    (output,) = net(x)[1]
    torch.testing.assert_close(output, head_by_hand(net, 0, tapped, added, 255, mean), rtol=1e-5, atol=1e-5)


def test_heads_add_the_image_where_the_student_does():
    net = build({**SRVGG, 'num_conv': 1}, ['body.3'], global_skip='none')
    x = images()
    feature = net.student.body[3](net.student.body[2](net.student.body[1](net.student.body[0](x))))
    wanted = head_by_hand(net, 0, feature, None, 1, F.interpolate(x, scale_factor=2.0, mode='nearest'))
    torch.testing.assert_close(net(x)[1][0], wanted)
    assert net.heads.image_skip == 'nearest'


@pytest.mark.parametrize(
    ('student', 'mode'),
    [
        ({'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1, 'upscale': 3}, 'bilinear'),
        ({**ECBSR, 'num_in_ch': 3, 'num_out_ch': 3}, 'nearest'),
        ({**ECBSR, 'num_in_ch': 1, 'num_out_ch': 1}, 'nearest'),
        ({**EDSR, 'num_block': 1}, None),
    ],
)
def test_image_that_the_student_adds_is_found(student, mode):
    net = build(student, {'evenly': 1})
    x = images(channels=student.get('num_in_ch', 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(parameter.requires_grad is False)
    sr, (head_sr,) = net(x)  # of weights that are all 0: what is added
    torch.testing.assert_close(head_sr, sr)
    assert net.heads.image_skip == mode


def test_nothing_is_held_after_the_forward():
    net, held = build({**SRVGG, 'num_conv': 2}, {'evenly': 2}), []
    for head in net.heads:
        head.register_forward_pre_hook(lambda _, given: held.extend(map(weakref.ref, given)))
    output = net(images())
    assert len(held) == 4 and all(reference() is not None for reference in held)
    del output
    gc.collect()
    assert [reference() for reference in held] == [None] * 4


def test_tokens_of_swinir_become_maps():
    net = build(SWINIR_2, ['layers.0'], global_skip='none')
    x = images()
    seen = {}
    net.student.layers[1].register_forward_pre_hook(lambda _, given: seen.update(tokens=given[0]))
    net.heads[0].register_forward_pre_hook(lambda _, given: seen.update(map=given[0]))
    net.eval()(x, with_heads=True)
    assert torch.equal(seen['map'], net.student.patch_unembed(seen['tokens'], (8, 12)))  # SwinIR's own way back


def test_trunk_on_a_folded_image():
    """At x2 RRDBNet folds the image into channels first, so that its trunk is at half the size."""
    net = build(RRDB, ['body.0'])
    x, seen = images(), []
    net.heads[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    sr, (head_sr,) = net(x)
    assert seen == [(2, 4, 4, 6)] and pixel_unshuffle(x, 2).shape[2:] == (4, 6)
    assert sr.shape == head_sr.shape == (2, 3, 16, 24)
    assert net.heads.mean.abs().max() == 0 and net.heads.image_skip is None


def test_heads_cost_nothing_in_eval():
    net = build({**SRVGG, 'num_conv': 2}, {'evenly': 2}).eval()
    stock = SRVGGNetCompact(num_feat=4, num_conv=2, upscale=2).eval()
    ran, flops = [], []
    for module in net.heads.modules():
        module.register_forward_hook(lambda *_: ran.append(1))
    for network in (net, stock):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images())
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0 and not ran
    net(images(), with_heads=True)
    assert ran


def test_its_student_is_the_stock_arch_and_a_copy_is_independent():
    net = build(SWINIR_2, ['layers.0'])
    twin = copy.deepcopy(net)
    assert type(net.student) is type(twin.student) is SwinIR
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    x = images()
    mine, its = net(x)[1][0], twin(x)[1][0]
    assert not torch.allclose(mine, its)
    twin.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(twin(x)[1][0], mine)


def test_building_draws_only_the_weights():
    """Nothing of the dry run depends on torch's random numbers, or changes them."""
    net = build({**EDSR, 'num_block': 2}, ['body.0'])
    after = torch.rand(1)
    torch.manual_seed(0)
    stock = dict(iter(ARCH_REGISTRY))['EDSR'](**RGB, num_feat=4, num_block=2, upscale=2)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in stock.state_dict().items())
    build_head = type(net.heads[0])
    build_head(num_out_ch=3, upscale=2, tap_channels=4, skip_channels=4, **TINY)
    assert torch.equal(torch.rand(1), after)


class OwnRange(nn.Module):
    """A network that subtracts and adds a mean of its own, around a bicubic image."""

    def __init__(self):
        super().__init__()
        self.img_range = 100.0
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.Conv2d(6, 6, 3, 1, 1), nn.Conv2d(6, 12, 3, 1, 1))
        self.upsample = nn.PixelShuffle(2)

    def forward(self, x):
        base = F.interpolate(x, scale_factor=2, mode='bicubic', align_corners=False)
        return self.upsample(self.body(x * 100)) / 100 + base + 0.25


@pytest.fixture
def register(monkeypatch):
    """``register(kind)``: an arch for the time of a test."""
    return lambda kind: monkeypatch.setitem(ARCH_REGISTRY._obj_map, kind.__name__, kind)


def test_mean_range_and_image_of_an_unknown_arch(register):
    register(OwnRange)
    heads = build({'type': 'OwnRange'}, ['body.1'], global_skip='body.0').heads
    assert heads.img_range == 100 and heads.image_skip == 'bicubic' and heads.scale == 2
    torch.testing.assert_close(heads.mean, torch.full((1, 3, 1, 1), 0.25))


class Plain(nn.Module):
    """A network without containers."""

    def __init__(self):
        super().__init__()
        self.conv, self.upsample = nn.Conv2d(3, 12, 3, 1, 1), nn.PixelShuffle(2)

    def forward(self, x):
        return self.upsample(self.conv(x))


def test_network_without_a_trunk_needs_paths(register):
    register(Plain)
    for taps, key in (({'evenly': 1}, 'taps.evenly'), (['conv'], 'global_skip')):
        with pytest.raises(UserError, match=f'^{key}: no chain of blocks .* is in Plain; give paths$'):
            build({'type': 'Plain'}, taps)
    _, (head_sr,) = build({'type': 'Plain'}, ['conv'], global_skip='none')(images())
    assert head_sr.shape == (2, 3, 16, 24)


def test_one_group_is_no_trunk_of_its_own():
    heads = build({**RCAN, 'num_group': 1, 'num_block': 4}, {'evenly': 3}).heads
    assert list(heads.taps.taps) == [f'body.0.residual_group.{number}' for number in range(3)]


@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler on a CPU')
def test_compiled_network_is_the_plain_one():
    net = build({**SRVGG, 'num_conv': 2}, {'evenly': 1})
    wanted, (wanted_head,) = net(images())
    net.compile(backend='aot_eager', fullgraph=True)
    sr, (head_sr,) = net(images())
    torch.testing.assert_close(sr, wanted)
    torch.testing.assert_close(head_sr, wanted_head)
    head_sr.sum().backward()
    assert net.student.body[0].weight.grad.abs().sum() > 0
