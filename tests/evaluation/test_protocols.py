"""The named protocols: what they compute, and that a table says which one it is by."""

import math

import cv2
import numpy as np
import pytest
import torch
from helpers.students import ARGUMENTS, student

from basicsr_clsd.config import Options, check, load, write_resolved
from basicsr_clsd.config.protocols import name_of
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.benchmark import protocol_name
from basicsr_clsd.evaluation.metrics import measure
from basicsr_clsd.evaluation.results import MetricProtocol, protocol_text

NIQE = {'type': 'calculate_niqe', 'crop_border': 2}


def options(scale: int = 2, **val) -> Options:
    network = {'type': 'EDSR', **ARGUMENTS, 'upscale': scale}
    sets = {'test': {'dataroot_gt': 'HR', 'dataroot_lq': 'LR'}}
    return Options.model_validate({'name': 'a', 'scale': scale, 'network_g': network, 'val': val, 'datasets': sets})


def psnr(first: np.ndarray, second: np.ndarray, border: int) -> float:
    inside = slice(border, -border)
    return 10 * math.log10(255**2 / np.mean((first[inside, inside].astype(float) - second[inside, inside]) ** 2))


def luma(image: np.ndarray) -> np.ndarray:
    return 16 + image.astype(float) @ [24.966, 128.553, 65.481] / 255


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('name', ['y_crop_scale', 'rgb_crop_scale', 'edsr_div2k_rgb'])
def test_channels_and_border_of_a_protocol(name, scale):
    rng = np.random.default_rng(0)
    gt = rng.integers(0, 256, (48, 60, 3)).astype(np.uint8)
    image = np.clip(gt + rng.normal(0, 9, gt.shape), 0, 255).round().astype(np.uint8)
    image[: scale + 6] = 0  # what the third cuts and the others do not
    values = measure(image, gt, options(scale, protocol=name).val.metrics)
    expected = {
        'y_crop_scale': psnr(luma(image), luma(gt), scale),
        'rgb_crop_scale': psnr(image, gt, scale),
        'edsr_div2k_rgb': psnr(image, gt, scale + 6),
    }[name]
    assert values['psnr'] == pytest.approx(expected, abs=1e-4)
    assert list(values) == ['psnr', 'ssim'] and 0 < values['ssim'] < 1


def words(options: Options) -> str:
    return protocol_text({name: MetricProtocol.of(metric) for name, metric in options.val.metrics.items()}, 'name')


def test_name_and_words():
    assert protocol_name(options()) == 'y_crop_scale'
    assert words(options(3)) == 'name: psnr and ssim on Y of YCbCr, 3 pixels of border cut'
    assert protocol_name(options(protocol='edsr_div2k_rgb')) == 'edsr_div2k_rgb'
    assert words(options(4, protocol='edsr_div2k_rgb')) == 'name: psnr and ssim on RGB, 10 pixels of border cut'


def test_name_of_metrics_that_are_written_out():
    y = {'crop_border': 2, 'test_y_channel': True}
    rgb = {'crop_border': 2}
    sections = {
        'y_crop_scale': {'psnr': {'type': 'calculate_psnr', **y}, 'ssim': {'type': 'calculate_ssim', **y}},
        'rgb_crop_scale': {'psnr': {'type': 'calculate_psnr', **rgb}, 'ssim': {'type': 'calculate_ssim', **rgb}},
        'custom': {'psnr': {'type': 'calculate_psnr', **y}, 'ssim': {'type': 'calculate_ssim', **rgb}},
    }
    for name, metrics in sections.items():
        assert protocol_name(options(metrics=metrics)) == name
        assert protocol_name(options(metrics={**metrics, 'niqe': NIQE})) == name
    assert name_of({'psnr': {'type': 'calculate_psnr', **y}}, 2) == 'custom'
    assert name_of(sections['y_crop_scale'], 3) == 'custom'


def test_metrics_beside_those_of_a_protocol(tmp_path):
    more = options(protocol='rgb_crop_scale', metrics={'niqe': NIQE})
    assert list(more.val.metrics) == ['psnr', 'ssim', 'niqe']
    check(more, testing=True)
    write_resolved(more, tmp_path / 'a.yml')
    assert load(tmp_path / 'a.yml') == more


def test_metrics_that_are_not_those_of_the_protocol():
    both = options(protocol='rgb_crop_scale', metrics={'psnr': {'type': 'calculate_psnr', 'crop_border': 4}})
    with pytest.raises(UserError, match=r'val\.metrics\.psnr: is not that of val\.protocol: rgb_crop_scale'):
        check(both, testing=True)


def test_a_protocol_that_is_none(benchmark_options, refused):
    benchmark_options['val']['protocol'] = 'y_crop'
    assert 'val.protocol: input should be' in refused(benchmark_options)


def test_small_constant_and_equal_images_in_a_table(benchmark_options, tested, tmp_path):
    """One ordinary image, one that bicubic makes without a fault, one smaller than SSIM's window."""
    rng = np.random.default_rng(0)
    sides = {'flat': 24, 'noise': 24, 'tiny': 12}
    for kind, factor in (('HR', 1), ('LR', 2)):
        (tmp_path / kind).mkdir()
        for name, side in sides.items():
            shape = (side // factor, side // factor, 3)
            image = np.full(shape, 90, np.uint8) if name == 'flat' else rng.integers(0, 256, shape).astype(np.uint8)
            assert cv2.imwrite(str(tmp_path / kind / f'{name}.png'), image)
    torch.save({'params': student(0).state_dict()}, tmp_path / 'net.pth')
    roots = {'dataroot_gt': str(tmp_path / 'HR'), 'dataroot_lq': str(tmp_path / 'LR')}
    benchmark_options['datasets'] = {'test_1': {'name': 'Odd', **roots}}
    content = tested(benchmark_options, '--checkpoints', str(tmp_path / 'net.pth'))
    bicubic = content['sets']['Odd']['bicubic']
    images = bicubic['images']
    assert (images['flat']['psnr'], images['tiny']['ssim']) == ('Infinity', 'NaN')
    assert images['flat']['ssim'] == pytest.approx(1)
    assert bicubic['mean']['psnr'] == pytest.approx((images['noise']['psnr'] + images['tiny']['psnr']) / 2)
    assert bicubic['mean']['ssim'] == pytest.approx((images['noise']['ssim'] + images['flat']['ssim']) / 2)
    notes = [
        'bicubic: psnr of Odd is infinite, the image is equal to HR: 1 of 3 (flat); is not in the mean',
        'bicubic: ssim of Odd is undefined, the image too small for it: 1 of 3 (tiny); is not in the mean',
        'net: ssim of Odd is undefined, the image too small for it: 1 of 3 (tiny); is not in the mean',
    ]
    assert [f'{note["row"]}: {note["text"]}' for note in content['notes']] == notes
    assert {note['kind'] for note in content['notes']} == {'left_out'}
    text = (tmp_path / 'results' / 'several' / 'results.md').read_text(encoding='utf-8')
    assert all(note in text for note in ['y_crop_scale: psnr and ssim on Y', *notes])
