"""Weights under EDSR-PyTorch's names, made by a network that is written as that code's is."""

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from torch import nn

from basicsr_clsd.archs import EDSRHeads
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.weights import load_weights

MEAN = (0.4488, 0.4371, 0.4040)
BLOCKS, CHANNELS, RES_SCALE = 3, 4, 0.1


def mean_shift(sign, mean=MEAN):
    layer = nn.Conv2d(3, 3, 1)
    layer.weight.data = torch.eye(3).view(3, 3, 1, 1)
    layer.bias.data = sign * 255 * torch.tensor(mean)
    return layer


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv(), nn.ReLU(True), conv())

    def forward(self, x):
        return self.body(x) * RES_SCALE + x


def conv(inputs=CHANNELS, outputs=CHANNELS):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Theirs(nn.Module):
    """EDSR by the paper's figure, under the names of its official PyTorch code; images in [0, 255]."""

    def __init__(self, scale, mean=MEAN):
        super().__init__()
        self.sub_mean, self.add_mean = mean_shift(-1, mean), mean_shift(1, mean)
        self.head = nn.Sequential(conv(3))
        self.body = nn.Sequential(*(Block() for _ in range(BLOCKS)), conv())
        steps = {2: [2], 3: [3], 4: [2, 2]}[scale]
        up = [layer for step in steps for layer in (conv(CHANNELS, CHANNELS * step**2), nn.PixelShuffle(step))]
        self.tail = nn.Sequential(nn.Sequential(*up), conv(CHANNELS, 3))

    def forward(self, x):
        first = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(self.body(first) + first))


@pytest.fixture
def saved(tmp_path):
    """``saved(network, change)``: a file of the network's weights, which ``change`` may have changed."""

    def save(network, change=lambda weights: None):
        weights = network.state_dict()
        change(weights)
        torch.save(weights, tmp_path / 'edsr.pt')
        return tmp_path / 'edsr.pt'

    return save


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('shifts', [True, False])
def test_converted_network_upscales_as_theirs(saved, scale, shifts):
    torch.manual_seed(0)
    theirs, ours = Theirs(scale), EDSR(3, 3, CHANNELS, BLOCKS, scale, RES_SCALE)

    def without_shifts(weights):
        for name in [name for name in weights if 'mean' in name]:
            del weights[name]

    load_weights(ours, saved(theirs, (lambda weights: None) if shifts else without_shifts), ['params'])
    image = torch.rand(1, 3, 6, 7)
    torch.testing.assert_close(255 * ours(image), theirs(255 * image), rtol=1e-5, atol=1e-3)


def test_converted_weights_start_a_student_with_heads(saved):
    theirs, ours = Theirs(2), EDSRHeads(3, 3, CHANNELS, BLOCKS, 2, RES_SCALE, head_taps=[1], head_num_block=1)
    load_weights(ours, saved(theirs), ['params'])
    image = torch.rand(1, 3, 6, 7)
    torch.testing.assert_close(255 * ours.eval()(image), theirs(255 * image), rtol=1e-5, atol=1e-3)


def test_other_mean_is_refused(saved):
    path = saved(Theirs(2, mean=(0.5, 0.5, 0.5)))
    with pytest.raises(UserError) as told:
        load_weights(EDSR(3, 3, CHANNELS, BLOCKS, 2), path, ['params'])
    assert str(told.value).startswith(f'{path}: sub_mean.bias is [-127.5, -127.5, -127.5], but EDSR shifts by [-114.44')


def test_other_size_is_told_by_basicsr_name(saved):
    path = saved(Theirs(2))
    with pytest.raises(UserError) as told:
        load_weights(EDSR(3, 3, CHANNELS, BLOCKS + 1, 2), path, ['params'])
    assert str(told.value) == (
        f'{path}: does not fit EDSR: missing body.3.conv1.weight, body.3.conv1.bias, body.3.conv2.weight and 1 more'
    )


def test_unknown_key_is_told(saved):
    path = saved(Theirs(2), lambda weights: weights.update({'tail.2.weight': torch.ones(1)}))
    with pytest.raises(UserError, match='unknown tail.2.weight'):
        load_weights(EDSR(3, 3, CHANNELS, BLOCKS, 2), path, ['params'])
