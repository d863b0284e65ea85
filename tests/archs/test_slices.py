"""A student that is the leading slice of a wider network: bits, gradients, parameters, and what is no slice."""

import copy

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from torch import nn

from basicsr_clsd.archs import ChannelSplittingNetwork, EDSRHeads, student_of
from basicsr_clsd.errors import UserError


def edsr(width, scale=2, blocks=2):
    return EDSR(3, 3, width, blocks, scale, 0.1)


def rcan(width, scale=2):
    return RCAN(3, 3, width, num_group=2, num_block=1, squeeze_factor=4, upscale=scale)


def sliced(make, scale=2, wide=32, narrow=8):
    torch.manual_seed(0)
    network = ChannelSplittingNetwork(make(wide, scale), make(narrow, scale))
    image = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    return network, image


def cut(network, student):
    """The leading block of each weight, cut by hand."""
    whole, found = network.wide.state_dict(), {}
    for name, value in student.state_dict().items():
        block = whole[name]
        for dimension, size in enumerate(value.shape):
            block = block.narrow(dimension, 0, size)
        found[name] = block.clone()
    return found


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('make', [edsr, rcan])
def test_slice_is_the_stock_arch_with_the_cut_weights_to_the_bit(make, scale):
    network, image = sliced(make, scale)
    stock = make(8, scale)
    stock.load_state_dict(cut(network, stock), strict=True)
    with torch.no_grad():
        sr, teacher_sr = network(image)
        assert torch.equal(sr, stock(image))
        assert torch.equal(network.eval()(image), stock(image))
        assert torch.equal(teacher_sr, network.wide(image))
    assert not torch.allclose(sr, teacher_sr, atol=1e-3)


def test_pixel_shuffle_takes_the_slice_that_a_narrower_upsampler_has():
    """The upsampler's first 4C' (x3: 9C') outputs are the blocks of pixels of the first C' channels."""
    for scale in (2, 3):
        feature = torch.rand(1, 8 * scale**2, 3, 3)
        shuffle = nn.PixelShuffle(scale)
        assert torch.equal(shuffle(feature)[:, :2], shuffle(feature[:, : 2 * scale**2]))


@pytest.mark.parametrize('make', [edsr, rcan])
def test_full_width_gives_both_outputs_alike(make):
    network, image = sliced(make, wide=8, narrow=8)
    sr, teacher_sr = network(image)
    assert torch.equal(sr, teacher_sr)


@pytest.mark.parametrize('make', [edsr, rcan])
def test_gradients_meet_in_the_slice(make):
    network, image = sliced(make)
    assert {name.split('.')[0] for name, value in network.named_parameters() if value.requires_grad} == {'wide'}
    sr, teacher_sr = network(image)
    sr.square().mean().backward(retain_graph=True)
    narrow = dict(make(8).named_parameters())
    for name, value in network.wide.named_parameters():
        inside = torch.zeros_like(value, dtype=torch.bool)
        inside[tuple(slice(size) for size in narrow[name].shape)] = True
        assert value.grad is not None
        assert value.grad[inside].any() and not value.grad[~inside].any(), name
    teacher_sr.square().mean().backward()
    width = network.wide.conv_first.weight.grad
    assert width[8:].any()


def test_state_is_that_of_the_wide_network_and_the_student_follows_it():
    network, image = sliced(edsr)
    assert network.state_dict().keys() == edsr(32).state_dict().keys()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for value in network.wide.parameters():
            value.mul_(1.5)
    student = student_of(network)
    assert isinstance(student, EDSR)
    for name, value in cut(network, student).items():
        assert torch.equal(student.state_dict()[name], value)
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(twin(image), network(image), strict=True))
        assert torch.equal(student(image), network.eval()(image))
    with pytest.raises(RuntimeError, match='Missing key'):
        twin.load_state_dict({})


@pytest.mark.parametrize(
    ('wide', 'student', 'told'),
    [
        (edsr(8), edsr(16), 'network_g: conv_first.weight is (16, 3, 3, 3), and (8, 3, 3, 3) in network_teacher; the'),
        (edsr(16), edsr(8, blocks=3), 'network_g: body.2.conv1.weight is not in network_teacher; the student must be'),
        (edsr(16), edsr(8, scale=3), 'network_g: upsample.0.weight is (72, 8, 3, 3), and (64, 16, 3, 3) in'),
        (rcan(16), edsr(8), 'network_g: body.0.conv1.weight is not in network_teacher; the student must be'),
        (edsr(16), EDSRHeads(num_feat=8, num_block=2, upscale=2, head_taps=[1]), 'network_g: a slice of network_teach'),
    ],
)
def test_what_is_no_slice_is_told_by_its_first_key(wide, student, told):
    with pytest.raises(UserError) as caught:
        ChannelSplittingNetwork(wide, student)
    assert str(caught.value).startswith(told)
