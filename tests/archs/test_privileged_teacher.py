"""The teacher of PISR: sizes, parameters, and a decoder that is the bare student."""

import pytest
import torch
from basicsr.archs.ecbsr_arch import ECBSR
from basicsr.archs.edsr_arch import EDSR

from basicsr_clsd.archs import PrivilegedTeacher
from basicsr_clsd.archs.windows import window_of
from basicsr_clsd.errors import UserError

SIZES = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2}


def teacher(scale=2, **arguments):
    return PrivilegedTeacher({'type': 'EDSR', **SIZES, 'upscale': scale, **arguments}, scale)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_encoder_makes_an_image_of_the_lr_size_and_the_decoder_is_the_bare_arch(scale):
    torch.manual_seed(0)
    network = teacher(scale)
    torch.manual_seed(0)
    stock = EDSR(**SIZES, upscale=scale)
    assert count(network.encoder) == 89_102
    assert {key: value.tolist() for key, value in network.decoder.state_dict().items()} == {
        key: value.tolist() for key, value in stock.state_dict().items()
    }
    assert {key.split('.')[0] for key in network.state_dict()} == {'encoder', 'decoder'}
    hr = torch.rand(2, 3, 10 * scale, 7 * scale)
    sr, encoded = network(hr)
    assert encoded.shape == (2, 3, 10, 7) and sr.shape == hr.shape
    assert torch.equal(sr, stock(encoded))
    assert torch.equal(network.eval()(hr), sr)


def test_encoder_by_its_layers():
    network, hr = teacher(), torch.rand(1, 3, 12, 8)
    feature = hr
    for number, stride in ((0, 1), (2, 2), (4, 1)):
        layer, slope = network.encoder[number], network.encoder[number + 1].weight
        assert slope.numel() == 1
        feature = torch.conv2d(feature, layer.weight, layer.bias, stride, layer.kernel_size[0] // 2)
        feature = torch.where(feature > 0, feature, slope * feature)
    last = network.encoder[6]
    torch.testing.assert_close(network(hr)[1], torch.conv2d(feature, last.weight, last.bias, 1, 1))
    assert [tuple(network.encoder[number].weight.shape[:3:2]) for number in (0, 2, 4, 6)] == [
        (56, 5),
        (56, 5),
        (12, 3),
        (3, 3),
    ]


def test_luma_has_an_encoder_of_one_channel():
    section = {'num_in_ch': 1, 'num_out_ch': 1, 'num_block': 2, 'num_channel': 4, 'with_idt': False}
    network = PrivilegedTeacher({'type': 'ECBSR', **section, 'act_type': 'prelu', 'scale': 2}, 2)
    assert isinstance(network.decoder, ECBSR) and count(network.encoder) == 86_084
    assert network(torch.rand(1, 1, 8, 8))[1].shape == (1, 1, 4, 4)


def test_windows_are_those_of_the_decoder_in_hr_pixels():
    section = {'embed_dim': 8, 'depths': [2], 'num_heads': [2], 'window_size': 4, 'upsampler': 'pixelshuffle'}
    network = PrivilegedTeacher({'type': 'SwinIR', **section, 'upscale': 3}, 3)
    assert window_of(network) == 12 and window_of(teacher(3)) == 3


@pytest.mark.parametrize(
    ('decoder', 'scale', 'text'),
    [
        ({'type': 'EDSR', **SIZES, 'upscale': 2}, 4, 'decoder: EDSR has the scale 2, not 4'),
        ({'type': 'EDSRHeads', 'head_taps': [4]}, 4, 'decoder.type: EDSRHeads has heads of its own'),
        ({'type': 'EDSRR'}, 2, 'decoder: must be a section with the type of a registered arch, not'),
    ],
)
def test_decoder_that_cannot_be_is_told(decoder, scale, text):
    with pytest.raises(UserError, match=f'^{text}'):
        PrivilegedTeacher(decoder, scale)
