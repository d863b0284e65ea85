"""Taps on a network: which features they are, and that they leave nothing behind."""

import copy
import gc
import weakref

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.archs.swinir_arch import SwinIR
from torch import nn

from basicsr_clsd.archs import EDSRHeads, student_of
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.errors import UserError

TINY = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 6, 'upscale': 2}
FAKD = ['body.1', 'body.3', 'upsample:input']  # after a third and two thirds of six blocks


@pytest.fixture(params=[EDSR, EDSRHeads])
def network(request):
    torch.manual_seed(0)
    heads = {'head_taps': [1], 'head_num_block': 1} if request.param is EDSRHeads else {}
    return student_of(request.param(**TINY, **heads).eval())


@pytest.fixture
def image():
    return torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def by_hand(network, image):
    """EDSR, layer by layer: the taps of FAKD."""
    first = network.conv_first((image - network.mean) * network.img_range)
    feature, found = first, {}
    for count, block in enumerate(network.body):
        feature = feature + block.conv2(torch.relu(block.conv1(feature)))
        found[f'body.{count}'] = feature
    found['upsample:input'] = network.conv_after_body(feature) + first
    return {tap: found[tap] for tap in FAKD}


def test_taps_of_edsr_are_those_of_fakd(network, image):
    taps = FeatureTaps(network, FAKD, 'key')
    with taps.recording(image) as features:
        sr = network(image)
    wanted = by_hand(network, image)
    assert features.keys() == wanted.keys()
    for tap, feature in features.items():
        torch.testing.assert_close(feature, wanted[tap])
    tail = network.conv_last(network.upsample(features['upsample:input'])) / network.img_range + network.mean
    torch.testing.assert_close(sr, tail)


def test_features_carry_the_gradient(network, image):
    with FeatureTaps(network, FAKD, 'key').recording(image) as features:
        network(image)
    gradients = torch.autograd.grad(sum(feature.sum() for feature in features.values()), network.conv_first.weight)
    assert gradients[0].any()


def test_nothing_is_recorded_or_held_outside_of_a_recording(network, image):
    taps = FeatureTaps(network, FAKD, 'key')
    with taps.recording(image) as features:
        network(image)
    held = [weakref.ref(feature) for feature in features.values()]
    network(image)
    assert all(features[tap] is reference() for tap, reference in zip(features, held, strict=True))
    del features
    gc.collect()
    assert [reference() for reference in held] == [None] * 3


def test_failing_run_leaves_nothing_behind(network, image):
    taps = FeatureTaps(network, FAKD, 'key')
    with pytest.raises(RuntimeError), taps.recording(image):
        network(image[:, :2])
    with taps.recording(image) as features:
        pass
    network(image)
    assert features == {}


def test_network_with_taps_is_as_it_was(network, image):
    plain = copy.deepcopy(network)
    FeatureTaps(network, FAKD, 'key')
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(network(image), plain(image))


def test_copies_of_the_network_do_not_record(network, image):
    taps = FeatureTaps(network, FAKD, 'key')
    copied = copy.deepcopy(network)
    with taps.recording(image) as features:
        copied(image)
    assert features == {}
    assert torch.equal(copied(image), network(image))


def test_one_tap_may_be_wanted_several_times(network, image):
    with FeatureTaps(network, ['body.1', 'body.1'], 'key').recording(image) as features:
        network(image)
    assert list(features) == ['body.1']


@pytest.mark.parametrize(
    ('tap', 'nearest'),
    [('body.44', 'body.4'), ('upsampel:input', 'upsample'), ('body.1.conv3', 'body.1.conv'), ('zzz', 'conv_first')],
)
def test_unknown_module_names_the_nearest(network, tap, nearest):
    with pytest.raises(UserError) as told:
        FeatureTaps(network, ['body.1', tap], 'train.distill_opt')
    text = str(told.value)
    assert text.startswith(f"train.distill_opt: {type(network).__name__} has no module '{tap.removesuffix(':input')}'")
    assert nearest in text.split('the nearest are ')[1] and '\n' not in text


class Odd(nn.Module):
    """A network with modules that no tap is good for."""

    def __init__(self):
        super().__init__()
        self.idle, self.pair, self.flat, self.last = nn.Identity(), nn.LSTM(3, 3), nn.Flatten(), nn.Identity()

    def forward(self, x):
        self.pair(self.flat(x)[:, :3])
        return self.last(x)


@pytest.mark.parametrize(
    ('tap', 'text'),
    [
        ('idle', "nothing comes by 'idle'"),
        ('pair', "'pair' of Odd is no feature (N, C, h, w), but tuple"),
        ('flat', "'flat' of Odd is no feature (N, C, h, w), but (2, 90)"),
    ],
)
def test_trial_tells_a_tap_that_is_no_feature(image, tap, text):
    network = Odd()
    with pytest.raises(UserError) as told, FeatureTaps(network, [tap], 'key').trial(image):
        network(image)
    assert str(told.value).startswith(f'key: {text}')


def test_tokens_of_swinir_come_as_maps(image):
    torch.manual_seed(0)
    sizes = {'img_size': 4, 'window_size': 2, 'embed_dim': 8, 'depths': [1, 1], 'num_heads': [2, 2]}
    network = SwinIR(**sizes, upscale=2, upsampler='pixelshuffledirect').eval()
    taps = FeatureTaps(network, ['layers.0', 'layers.1:input', 'norm', 'conv_first'], 'key')
    image = image[:, :, :4]
    image = torch.cat([image, image], 3)[..., :6]
    with taps.trial(image) as features:
        network(image)
    assert {feature.shape for feature in features.values()} == {(2, 8, 4, 6)}
    assert torch.equal(features['layers.0'], features['layers.1:input'])
    # What SwinIR itself makes of its tokens is the map that its convolution after the trunk gets.
    given = []
    network.conv_after_body.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    with taps.recording(image) as features:
        network(image)
    assert torch.equal(features['norm'], given[0])


@pytest.mark.parametrize(
    ('network', 'tap'), [(EDSR(**TINY), 'conv_after_body'), (MSRResNet(num_feat=8, num_block=1), 'conv_first')]
)
def test_feature_that_is_changed_in_place_later_on_is_copied(image, network, tap):
    taps, seen = FeatureTaps(network, [tap, 'body.0'], 'k'), []
    network.get_submodule(tap).register_forward_hook(lambda *given: seen.append(given[2].clone()))
    for recording in (taps.trial, taps.recording):
        with recording(image) as features:
            network(image)
        assert torch.equal(features[tap], seen[-1])
    upsampled = FeatureTaps(network, ['body.0'], 'k')
    with upsampled.recording(image) as features:
        network(image)
    assert features.keys() == {'body.0'}
