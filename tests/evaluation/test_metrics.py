"""The metrics and the protocol, against formulas written out and against published reference numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from basicsr_clsd.config.components import Metric
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.metrics import Scores, as_image, bicubic, measure, upscaled

# Mean PSNR and SSIM of bicubic upscaling.
BICUBIC = {
    ('Set5', 2): (33.6786, 0.93042),
    ('Set5', 3): (30.4058, 0.86895),
    ('Set5', 4): (28.4318, 0.81126),
    ('Set14', 2): (30.3292, 0.86997),
    ('Set14', 3): (27.6349, 0.77595),
    ('Set14', 4): (26.0928, 0.70491),
}
SET5 = {
    2: [37.0876, 36.8308, 27.4384, 34.8828, 32.1534],
    4: [31.7864, 30.1870, 22.1010, 31.6150, 26.4692],
}


def protocol(border: int, y: bool = True) -> dict[str, Metric]:
    arguments = {'crop_border': border, 'test_y_channel': y}
    return {name: Metric.model_validate({'type': f'calculate_{name}', **arguments}) for name in ('psnr', 'ssim')}


def luma(image: np.ndarray) -> np.ndarray:
    """Y of BT.601 in 16..235, not rounded, of BGR bytes."""
    blue, green, red = (image[..., channel].astype(np.float64) for channel in range(3))
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return 10 * math.log10(255**2 / error)


def cut(image: np.ndarray, border: int) -> np.ndarray:
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Gaussian window of 11 by 11, sigma 1.5, over the region where it fits."""
    _, values = structural_similarity(
        first, second, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return cut(values, 5).mean()


@pytest.mark.parametrize(('name', 'scale'), BICUBIC)
def test_bicubic_table(benchmark_data, name, scale):
    root = benchmark_data / name
    dataset = PairedDataset(
        {
            'phase': 'test',
            'scale': scale,
            'dataroot_gt': str(root / 'HR' / f'x{scale}'),
            'dataroot_lq': str(root / f'LRbicx{scale}'),
        }
    )
    scores = Scores()
    for sample in upscaled(dataset, lambda lq: [lq]):
        scores.images[sample.name] = measure(bicubic(sample.lq, scale), sample.gt, protocol(scale))
    expected_psnr, expected_ssim = BICUBIC[name, scale]
    assert scores.mean()['psnr'] == pytest.approx(expected_psnr, abs=1e-3)
    assert scores.mean()['ssim'] == pytest.approx(expected_ssim, abs=1e-4)
    if name == 'Set5' and scale in SET5:
        assert list(scores.images) == [f'img_00{number}' for number in range(1, 6)]
        assert [values['psnr'] for values in scores.images.values()] == pytest.approx(SET5[scale], abs=1e-3)


@given(st.integers(0, 999), st.integers(24, 40), st.integers(24, 40), st.integers(0, 6), st.integers(1, 60))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_metrics_against_their_formulas(seed, height, width, border, strength):
    rng = np.random.default_rng(seed)
    gt = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = np.clip(gt + rng.normal(0, strength, gt.shape), 0, 255).round().astype(np.uint8)
    on_y, on_rgb = measure(image, gt, protocol(border)), measure(image, gt, protocol(border, y=False))
    cut_image, cut_gt = cut(image, border), cut(gt, border)
    if (cut_image == cut_gt).all():
        assert on_y['psnr'] == on_rgb['psnr'] == math.inf
        return
    # BasicSR computes Y in float32.
    assert on_y['psnr'] == pytest.approx(psnr(luma(cut_image), luma(cut_gt)), abs=1e-4)
    assert on_y['ssim'] == pytest.approx(ssim(luma(cut_image), luma(cut_gt)), abs=1e-5)
    assert on_rgb['psnr'] == pytest.approx(psnr(cut_image, cut_gt), abs=1e-6)
    channels = [ssim(cut_image[..., c].astype(float), cut_gt[..., c].astype(float)) for c in range(3)]
    assert on_rgb['ssim'] == pytest.approx(np.mean(channels), abs=1e-6)


def test_metrics_are_those_asked_for_with_their_arguments():
    rng = np.random.default_rng(0)
    gt = rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)
    image = gt.copy()
    image[:2] = 0
    metrics = {
        'inner': Metric.model_validate({'type': 'calculate_psnr', 'crop_border': 2}),
        'whole': Metric.model_validate({'type': 'calculate_psnr', 'crop_border': 0}),
        'ssim': Metric.model_validate({'type': 'calculate_ssim', 'crop_border': 2, 'better': 'higher'}),
    }
    values = measure(image, gt, metrics)
    assert list(values) == ['inner', 'whole', 'ssim']
    assert values['inner'] == math.inf and values['ssim'] == pytest.approx(1)
    assert values['whole'] == pytest.approx(psnr(image, gt), abs=1e-6)
    assert all(type(value) is float for value in values.values())


def test_images_are_clipped_and_rounded_to_bytes():
    values = torch.tensor([-0.5, 0.0, 0.49 / 255, 0.51 / 255, 100.49 / 255, 100.51 / 255, 1.0, 1.7])
    tensor = torch.stack([values, values.flip(0), torch.zeros(8)]).reshape(3, 2, 4)
    expected = np.array([0, 0, 0, 1, 100, 101, 255, 255])
    image = as_image(tensor)
    assert image.dtype == np.uint8 and image.shape == (2, 4, 3)
    np.testing.assert_array_equal(image[..., 2].ravel(), expected)
    np.testing.assert_array_equal(image[..., 1].ravel(), expected[::-1])
    assert (image[..., 0] == 0).all()
    np.testing.assert_array_equal(as_image(tensor[None]), image)
    assert as_image(tensor[:1]).shape == (2, 4)


def test_samples_of_a_set_are_its_images(tmp_path, make_pairs):
    hr, lr = make_pairs(tmp_path, count=3, height=16, width=20)
    dataset = PairedDataset({'phase': 'test', 'scale': 2, 'dataroot_gt': str(hr), 'dataroot_lq': str(lr)})
    given = []

    def upscale(lq: torch.Tensor) -> list[torch.Tensor]:
        given.append(lq)
        return [torch.nn.functional.interpolate(lq, scale_factor=2), torch.ones(1, 3, 16, 20) * 2]

    samples = list(upscaled(dataset, upscale))
    assert [sample.name for sample in samples] == ['img1', 'img2', 'img3']
    for index, sample in enumerate(samples):
        assert given[index].shape == (1, 3, 8, 10)
        np.testing.assert_array_equal(sample.lq, as_image(dataset[index]['lq']))
        np.testing.assert_array_equal(sample.gt, as_image(dataset[index]['gt']))
        nearest, white = sample.outputs
        np.testing.assert_array_equal(nearest, sample.lq.repeat(2, 0).repeat(2, 1))
        assert (white == 255).all()


def test_names_of_an_lmdb_keep_their_dots(tmp_path):
    """Two keys that differ only after a dot are two images."""
    import lmdb  # noqa: PLC0415

    from basicsr_clsd.images.codec import cv2  # noqa: PLC0415

    _, content = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))
    root = tmp_path / 'HR.lmdb'
    with lmdb.open(str(root), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        for key in (b'img.v1', b'img.v2'):
            transaction.put(key, content.tobytes())
    (root / 'meta_info.txt').write_text('img.v1.png (8,8,3) 1\nimg.v2.png (8,8,3) 1\n', encoding='utf-8')
    dataset = PairedDataset({'phase': 'test', 'scale': 1, 'dataroot_gt': str(root), 'dataroot_lq': str(root)})
    assert [sample.name for sample in upscaled(dataset, lambda lq: [lq])] == ['img.v1', 'img.v2']


def test_mean_of_scores():
    scores = Scores({'a': {'psnr': 30.0, 'ssim': 0.5}, 'b': {'psnr': 31.0, 'ssim': 1.0}})
    assert scores.mean() == {'psnr': 30.5, 'ssim': 0.75}
    assert Scores().mean() == {}
    assert Scores({'a': {'psnr': math.inf}, 'b': {'psnr': 1.0}, 'c': {'psnr': math.nan}}).mean() == {'psnr': 1.0}
    assert Scores({'a': {'psnr': math.inf}, 'b': {'psnr': math.inf}}).mean() == {'psnr': math.inf}
    assert math.isnan(Scores({'a': {'ssim': math.nan}}).mean()['ssim'])


def test_why_images_are_not_in_a_mean():
    scores = Scores({'a': {'psnr': math.inf}, 'b': {'psnr': 1.0}, 'c': {'psnr': math.nan}})
    assert scores.left_out('psnr') == {
        'a': 'is infinite, the image is equal to HR',
        'c': 'is undefined, the image too small for it',
    }


@pytest.mark.parametrize('y', [True, False])
@pytest.mark.parametrize('value', [0, 90, 255])
def test_constant_images(value, y):
    gt = np.full((30, 30, 3), 90, np.uint8)
    values = measure(np.full_like(gt, value), gt, protocol(2, y))
    if value == 90:
        assert values == {'psnr': math.inf, 'ssim': pytest.approx(1, abs=1e-6)}
        return
    first, second = (luma(gt)[0, 0], luma(np.full_like(gt, value))[0, 0]) if y else (90, value)
    assert values['psnr'] == pytest.approx(20 * math.log10(255 / abs(first - second)), abs=1e-4)
    small = (0.01 * 255) ** 2
    expected = (2 * first * second + small) / (first**2 + second**2 + small)  # the structure's part is 1
    assert values['ssim'] == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    ('height', 'width', 'border', 'psnr_there', 'ssim_there'),
    [
        (11, 11, 0, True, True),
        (10, 40, 0, True, False),
        (15, 15, 2, True, True),
        (40, 14, 2, True, False),
        (4, 40, 2, False, False),
        (3, 3, 2, False, False),
        (1, 1, 0, True, False),
    ],
)
def test_images_that_are_too_small_for_a_metric(height, width, border, psnr_there, ssim_there):
    rng = np.random.default_rng(0)
    image, gt = (rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(2))
    values = measure(image, gt, protocol(border))
    assert (math.isfinite(values['psnr']), math.isfinite(values['ssim'])) == (psnr_there, ssim_there)


def test_a_metric_that_fails_is_named():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    metrics = {'other': Metric.model_validate({'type': 'calculate_psnr', 'crop_border': 0, 'input_order': 'ABC'})}
    with pytest.raises(UserError, match=r'val\.metrics\.other: calculate_psnr of 8x8: Wrong input_order'):
        measure(image, image, metrics)


def test_bicubic_of_gray_and_colour_agree():
    gray = np.random.default_rng(0).integers(0, 256, (9, 8)).astype(np.uint8)
    np.testing.assert_array_equal(np.stack([bicubic(gray, 2)] * 3, -1), bicubic(np.stack([gray] * 3, -1), 2))
