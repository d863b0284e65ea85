"""Extractors: sizes, values against the networks themselves, and weights that are not what they should be."""

import hashlib

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from torchvision.models import vgg19

from basicsr_clsd.config.components import FeatureRatioTerm
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks import features
from basicsr_clsd.networks.features import build_extractor

EDSR_SECTION = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 3, 'upscale': 2}
TAPS = ['conv_first', 'body.0', 'body.2']


def extractor(patch=32, seed=0, **section):
    return build_extractor(FeatureRatioTerm(type='RatioOfFeaturesLoss', **section), 'train.contrast_opt', seed, patch)


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(1)
    made = EDSR(3, 3, 8, 3, 2)
    torch.save({'params': made.state_dict()}, tmp_path / 'edsr.pth')
    return made, {'extractor': 'network', 'network': EDSR_SECTION, 'path': str(tmp_path / 'edsr.pth'), 'taps': TAPS}


def test_pixels_are_the_image(image):
    (found,) = extractor(extractor='pixels')(image)
    assert torch.equal(found, image)


def test_vgg19_has_five_features_of_the_sizes_of_the_method(image):
    found = extractor(vgg_weights='random')(image)
    assert [tuple(feature.shape[1:]) for feature in found] == [
        (64, 32, 48),
        (128, 16, 24),
        (256, 8, 12),
        (512, 4, 6),
        (512, 2, 3),
    ]
    assert all((feature >= 0).all() and feature.any() for feature in found)


def test_random_weights_depend_on_the_seed_alone_and_leave_the_programs_numbers_alone(image):
    before = torch.get_rng_state()
    first = extractor(vgg_weights='random')
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    second, other = extractor(vgg_weights='random'), extractor(vgg_weights='random', seed=1)
    assert torch.equal(first(image)[4], second(image)[4]) and not torch.equal(first(image)[4], other(image)[4])
    assert not any(value.requires_grad for value in first.parameters()) and not first.training


def test_without_biases_vgg19_is_homogeneous(image):
    made = extractor(vgg_weights='random')
    for feature, scaled in zip(made(image), made(0.5 * image), strict=True):
        torch.testing.assert_close(scaled, 0.5 * feature, rtol=1e-4, atol=1e-3)


@pytest.fixture
def vgg_file(tmp_path, monkeypatch):
    """A file as torchvision's, of weights drawn at random, that passes for the true one."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        whole = vgg19(weights=None, num_classes=2).eval()
    torch.nn.init.normal_(whole.features[0].bias)
    path = tmp_path / 'vgg19.pth'
    torch.save({name: value for name, value in whole.state_dict().items() if name.startswith('features.')}, path)
    monkeypatch.setattr(features, 'VGG19_DIGITS', hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    return whole.features, path


@pytest.mark.parametrize('kind', ['raw', 'imagenet'])
def test_vgg19_of_a_file_is_torchvisions(vgg_file, image, kind):
    theirs, path = vgg_file
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    given = 255 * image if kind == 'raw' else (image - mean) / deviation
    found = extractor(vgg_weights=str(path), input=kind)(image)
    for number, feature in zip((1, 6, 11, 20, 29), found, strict=True):
        torch.testing.assert_close(feature, theirs[: number + 1](given), rtol=1e-4, atol=1e-3)


def test_network_is_run_to_its_last_tap_and_no_further(network, image):
    made, section = network
    found = extractor(**section)
    upsampled = []
    found.network.upsample.register_forward_hook(lambda *_: upsampled.append(1))
    first = made.conv_first((image - made.mean) * made.img_range)
    wanted = [first, made.body[0](first), made.body(first)]
    for feature, expected in zip(found(image), wanted, strict=True):
        torch.testing.assert_close(feature, expected)
    assert not upsampled
    image.requires_grad_()
    sum(feature.mean() for feature in found(image)).backward()
    assert image.grad.any() and all(value.grad is None for value in found.parameters())


def test_missing_or_other_vgg_file_is_told_with_its_address(tmp_path):
    address = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth'
    path = tmp_path / 'vgg.pth'
    with pytest.raises(UserError) as caught:
        extractor(vgg_weights=str(path))
    assert str(caught.value) == f'train.contrast_opt.vgg_weights: {path}: no such file; get it from {address}'
    path.write_bytes(b'other')
    digits = hashlib.sha256(b'other').hexdigest()[:8]
    with pytest.raises(UserError) as caught:
        extractor(vgg_weights=str(path))
    assert str(caught.value) == (
        f"train.contrast_opt.vgg_weights: {path}: not torchvision's VGG19: its SHA-256 begins with {digits}, not "
        f'dcbb9e9d; get it from {address}'
    )


@pytest.mark.parametrize(
    ('section', 'told'),
    [
        (
            {},
            'train.contrast_opt.vgg_weights: missing; extractor: vgg19 needs it, the path of https://download.pytorch',
        ),
        ({'extractor': 'network'}, 'train.contrast_opt.network: missing; extractor: network needs it'),
        (
            {'extractor': 'network', 'network': EDSR_SECTION, 'path': 'a.pth'},
            'train.contrast_opt.taps: missing; extractor: network needs it',
        ),
        (
            {'extractor': 'network', 'network': EDSR_SECTION, 'path': 'none.pth', 'taps': TAPS},
            'train.contrast_opt.path: none.pth: no such file',
        ),
        (
            {'extractor': 'pixels', 'vgg_weights': 'random'},
            'train.contrast_opt.vgg_weights: extractor: pixels has no such key',
        ),
        ({'extractor': 'pixels', 'input': 'imagenet'}, 'train.contrast_opt.input: extractor: pixels has no such key'),
        ({'vgg_weights': 'random', 'patch': 12}, 'datasets.train.gt_size: 12 is too small for vgg19, which needs 16'),
    ],
)
def test_mistakes_are_told_in_one_line(section, told):
    with pytest.raises(UserError) as caught:
        extractor(**section)
    assert str(caught.value).startswith(told)


def test_unknown_tap_is_told(network):
    with pytest.raises(UserError) as caught:
        extractor(**{**network[1], 'taps': ['bdy.0']})
    assert str(caught.value).startswith("train.contrast_opt.taps: EDSR has no module 'bdy.0'; the nearest are body.0")
