"""CLSD must not hold a student at what it begins with: the interpolated image, or an image of one colour."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.one_step import step
from torch.nn import functional as F

from basicsr_clsd.archs.probe import interpolate
from basicsr_clsd.config import load
from basicsr_clsd.models import CLSDModel

OPTIONS = Path(__file__).resolve().parents[2] / 'options'
FILES = sorted(
    path.relative_to(OPTIONS).as_posix()
    for folder in (OPTIONS, OPTIONS / 'small')
    for path in folder.glob('train_CLSD*_x2.yml')
)
ITERATIONS, BATCH, RATE = 300, 8, 2e-3
MARGIN = 0.5  # dB
# By type of network: what makes it small.
SMALL = {
    'EDSRHeads': {'num_feat': 8, 'num_block': 4, 'head_taps': '[1,2,3]', 'head_num_block': 1},
    'RCAN': {'num_feat': 8, 'num_group': 4, 'num_block': 1, 'squeeze_factor': 4},
    'SwinIR': {'embed_dim': 12, 'depths': '[2,2,2,2]', 'num_heads': '[2,2,2,2]', 'img_size': 16},
    'MSRResNet': {'num_feat': 8, 'num_block': 4},
    'SRVGGNetCompact': {'num_feat': 16, 'num_conv': 10},
    'ECBSR': {'num_channel': 8},
}

pytestmark = pytest.mark.slow  # 300 iterations of each file


@pytest.fixture(scope='module')
def photos():
    """HR images (64, 3, 32, 32) of blocks with sharp edges and soft insides, and LR."""
    rng = np.random.default_rng(0)
    hr = F.interpolate(torch.from_numpy(rng.random((64, 3, 6, 6), np.float32)), 32, mode='bicubic').clamp(0, 1)
    for image in hr:
        for _ in range(6):
            (top, bottom), (left, right) = (sorted(rng.integers(0, 32, 2)) for _ in range(2))
            image[:, top:bottom, left:right] = image[:, top:bottom, left:right] / 2 + rng.random() / 2
    return hr, F.interpolate(hr, scale_factor=0.5, mode='bicubic', antialias=True).clamp(0, 1)


def small(name):
    """The options of a file, with a small student and heads, and all the same losses."""
    network = load(OPTIONS / name).network_g
    sizes = SMALL.get(network.type)
    if sizes is None:
        student = SMALL[network.arguments()['student']['type']]
        sizes = {'head:num_feat': 8, 'head:num_block': 1, **{f'student:{key}': value for key, value in student.items()}}
    options = load(OPTIONS / name, [f'network_g:{key}={value}' for key, value in sizes.items()])
    options.num_gpu = 0
    assert options.train is not None
    options.train.optim_g.__pydantic_extra__['lr'] = RATE
    for loss in options.train.losses().values():
        if loss.schedule is not None:
            loss.schedule.shorten(ITERATIONS / options.train.total_iter)
    return options


def gain(options, photos):
    """By how many dB a student is better, after its training, than what it began with."""
    luma = any(section.color == 'y' for section in options.datasets.values())
    hr, lr = (images.mean(1, keepdim=True) if luma else images for images in photos)
    torch.manual_seed(0)
    model = CLSDModel(options)
    image = model.net_g.heads.image_skip
    base = hr.mean((0, 2, 3), keepdim=True) if image is None else interpolate(lr, 2, image)
    order = torch.Generator().manual_seed(0)
    for iteration in range(1, ITERATIONS + 1):
        chosen = torch.randint(len(hr), (BATCH,), generator=order)
        step(model, {'lq': lr[chosen], 'gt': hr[chosen]}, iteration)
    sr = model.upscale(lr)[0]
    return float(10 * torch.log10((base - hr).square().mean() / (sr - hr).square().mean()))


@pytest.mark.parametrize('name', FILES)
def test_student_of_a_shipped_file_leaves_what_it_begins_with(name, photos):
    options = small(name)
    found = gain(options, photos)
    assert found > MARGIN


def test_gate_is_what_lets_a_deep_network_go(photos):
    options = small('train_CLSD_SRVGG_x2.yml')
    gated = gain(options, photos)
    options.train.contrastive_opt.schedule = None
    assert gated > gain(options, photos) + MARGIN
