"""What the features of an image are to a loss: those of VGG19, of any registered network, or its pixels."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import vgg

from basicsr_clsd import registry
from basicsr_clsd.archs import student_of
from basicsr_clsd.archs.probe import probe
from basicsr_clsd.archs.taps import FeatureTaps
from basicsr_clsd.archs.trunk import TapList, resolve
from basicsr_clsd.config.components import FeatureRatioTerm
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.weights import load_weights, read_file

RANDOM, RAW = 'random', 'raw'
VGG19_FILE = 'https://download.pytorch.org/models/vgg19-dcbb9e9d.pth'
VGG19_DIGITS = 'dcbb9e9d'  # the first of the file's SHA-256
VGG19_LAYERS = (1, 6, 11, 20, 29)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
VGG19_SIDE = 16  # pixels, of which relu5_1 makes one
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What each extractor must have, and what others have that it has not.
KEYS = {'vgg19': ('vgg_weights',), 'network': ('network', 'path', 'taps'), 'pixels': ()}


class Pixels(nn.Module):
    """The image itself."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one feature, the images (N, C, H, W)."""
        return [images]


class VGG19(nn.Module):
    """Five features of VGG19 without batch normalisation (Simonyan and Zisserman, ICLR 2015), as CSD takes them.

    Args:
        weights: Path of torchvision's file, or ``random``.
        kind: ``raw``, RGB in [0, 255], or ``imagenet``, normalised as the weights were trained.
        seed: Of random weights.
        where: Key of the path in the options.

    Raises:
        UserError: The file is missing or another.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, weights: str, kind: str, seed: int, where: str) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the program's own random numbers are left alone
            torch.manual_seed(seed)
            self.features = vgg.make_layers(vgg.cfgs['E'])[: VGG19_LAYERS[-1] + 1]
            self.features.apply(_initialise)
        if weights != RANDOM:
            self.features.load_state_dict(_vgg19_weights(Path(weights).expanduser(), self.features.state_dict(), where))
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
        raw = kind == RAW
        self.register_buffer('scale', torch.full_like(mean, 255.0) if raw else 1 / deviation, persistent=False)
        self.register_buffer('shift', torch.zeros_like(mean) if raw else -mean / deviation, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of images (N, 3, H, W) in [0, 1]; of 64 to 512 channels, at 1 to 1/16 of their size."""
        feature, found = images * self.scale + self.shift, []
        for number, layer in enumerate(self.features):
            feature = layer(feature)
            if number in VGG19_LAYERS:
                found.append(feature)
        return found


def _initialise(module: nn.Module) -> None:
    """As torchvision does."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class _Enough(Exception):  # noqa: N818  (nothing went wrong)
    """All taps have been noted."""


class _Noted(dict[str, Tensor]):
    """Features by tap, which ends the network's run when all are there."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __setitem__(self, tap: str, feature: Tensor) -> None:
        super().__setitem__(tap, feature)
        if len(self) == self.count:
            raise _Enough


class NetworkFeatures(nn.Module):
    """Features of a super-resolution network that is given HR images as if they were LR; it stops at the last.

    Args:
        network: The network, with its weights.
        taps: See :func:`~basicsr_clsd.archs.trunk.resolve`.
        where: Key of the taps in the options.

    Raises:
        UserError: A tap does not exist, or cannot be used.
    """

    def __init__(self, network: nn.Module, taps: TapList, where: str) -> None:
        super().__init__()
        self.network = network
        probed = probe(network)
        self.taps = FeatureTaps(network, resolve(taps, where, lambda: probed), where)
        with self.taps.trial(probed.image):
            probed.run()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of images (N, C, H, W) in [0, 1], in the order of the taps."""
        found = _Noted(len(self.taps.taps))
        self.taps.start(found, images)
        try:
            self.network(images)
        except _Enough:
            pass
        finally:
            self.taps.stop()
        return [found[tap] for tap in self.taps.taps]


def build_extractor(section: FeatureRatioTerm, where: str, seed: int, patch: int) -> nn.Module:
    """Build a frozen extractor: a module that gives a list of features (N, C, h, w) of images (N, C, H, W) in [0, 1].

    Args:
        section: Which, and with what weights.
        where: Its key in the options.
        seed: Of random weights.
        patch: Side of the images in pixels.

    Raises:
        UserError: A key is missing, or one that the extractor has not is there; the weights or taps do not fit.
    """
    name = section.extractor
    for key in dict.fromkeys(key for keys in KEYS.values() for key in keys):
        if key in KEYS[name] and not getattr(section, key):
            raise UserError(f'{where}.{key}: missing; extractor: {name} needs it{_advice(key)}')
        if key not in KEYS[name] and getattr(section, key):
            raise UserError(f'{where}.{key}: extractor: {name} has no such key')
    if section.input != RAW and name != 'vgg19':
        raise UserError(f'{where}.input: extractor: {name} has no such key')
    if name == 'vgg19' and patch < VGG19_SIDE:
        raise UserError(f'datasets.train.gt_size: {patch} is too small for vgg19, which needs {VGG19_SIDE} pixels')
    extractor: nn.Module
    if name == 'network':
        extractor = _network_features(section, where)
    elif name == 'vgg19':
        extractor = VGG19(str(section.vgg_weights), section.input, seed, f'{where}.vgg_weights')
    else:
        extractor = Pixels()
    return extractor.eval().requires_grad_(False)


def _network_features(section: FeatureRatioTerm, where: str) -> NetworkFeatures:
    assert section.network is not None and section.path is not None
    network = registry.build('archs', section.network, f'{where}.network')
    try:
        load_weights(network, section.path, ['params'])
    except UserError as error:
        raise UserError(f'{where}.path: {error}') from error
    return NetworkFeatures(student_of(network), section.taps, f'{where}.taps')


def _advice(key: str) -> str:
    return f', the path of {VGG19_FILE}' if key == 'vgg_weights' else ''


def _vgg19_weights(path: Path, expected: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f'{where}: {path}: no such file; get it from {VGG19_FILE}')
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    if not digest.hexdigest().startswith(VGG19_DIGITS):
        raise UserError(
            f"{where}: {path}: not torchvision's VGG19: its SHA-256 begins with {digest.hexdigest()[:8]}, not "
            f'{VGG19_DIGITS}; get it from {VGG19_FILE}'
        )
    found = read_file(path)
    return {name: found[f'features.{name}'] for name in expected}
