"""How LR images were made: MATLAB's bicubic is known bit for bit, and other kernels by what they leave behind."""

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.matlab_functions import imresize
from PIL import Image
from skimage import data

from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.prepare.checks.kernel import ROUNDED_ONCE, is_matlab_bicubic, nearest_kernels

SCALES = [2, 3, 4]


@pytest.fixture(scope='module')
def hr() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[100:340, 60:420])  # 240x360


def opencv(image: np.ndarray, scale: int, interpolation: int) -> np.ndarray:
    return cv2.resize(image, (image.shape[1] // scale, image.shape[0] // scale), interpolation=interpolation)


def pillow(image: np.ndarray, scale: int, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((image.shape[1] // scale, image.shape[0] // scale), resampling))


def basicsr(image: np.ndarray, scale: int) -> np.ndarray:
    return (imresize(image.astype(np.float32) / 255, 1 / scale) * 255).clip(0, 255).round().astype(np.uint8)


def torch_antialiased(image: np.ndarray, scale: int) -> np.ndarray:
    planes = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    small = torch.nn.functional.interpolate(planes, scale_factor=1 / scale, mode='bicubic', antialias=True)
    return small[0].numpy().transpose(1, 2, 0).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize('border', ['replicate', 'symmetric'])
def test_matlabs_bicubic_is_known_by_both_of_its_border_rules(hr, scale, border):
    lr = matlab_resize(hr, 1 / scale, border=border)
    assert is_matlab_bicubic(hr, lr, scale)
    lr[20:24, 20:24] += 1
    assert is_matlab_bicubic(hr, lr, scale) == (48 <= lr[2:-2, 2:-2].size / 1000)


@pytest.mark.parametrize('scale', SCALES)
def test_sub_images_of_matlabs_bicubic_are_known(hr, scale):
    """Their border was made with HR pixels outside."""
    lr = matlab_resize(hr, 1 / scale)
    assert is_matlab_bicubic(hr[24:168, 48:240], lr[24 // scale : 168 // scale, 48 // scale : 240 // scale], scale)
    assert not is_matlab_bicubic(
        hr[24:168, 48:240], lr[24 // scale + 1 :, 48 // scale :][: 144 // scale, : 192 // scale], scale
    )


@pytest.mark.parametrize('scale', SCALES)
def test_published_lr_images_are_known(benchmark_data, scale):
    for name in ('Set5', 'Set14'):
        hr, lr = (
            FolderStore(benchmark_data / name / 'HR' / f'x{scale}'),
            FolderStore(benchmark_data / name / f'LRbicx{scale}'),
        )
        for image in hr.names():
            assert is_matlab_bicubic(hr.read(image), lr.read(image), scale), (name, image)


@pytest.mark.parametrize('scale', SCALES)
@pytest.mark.parametrize(
    ('make', 'expected'),
    [
        (basicsr, ROUNDED_ONCE),
        (lambda hr, scale: matlab_resize(hr, 1 / scale, antialias=False), "MATLAB's bicubic without antialiasing"),
        (lambda hr, scale: opencv(hr, scale, cv2.INTER_CUBIC), "OpenCV's INTER_CUBIC"),
        (lambda hr, scale: opencv(hr, scale, cv2.INTER_AREA), "OpenCV's INTER_AREA"),
        (lambda hr, scale: opencv(hr, scale, cv2.INTER_LINEAR), "OpenCV's INTER_LINEAR"),
        (lambda hr, scale: opencv(hr, scale, cv2.INTER_LANCZOS4), "OpenCV's INTER_LANCZOS4"),
        (lambda hr, scale: hr[::scale, ::scale], "OpenCV's INTER_NEAREST"),
        (lambda hr, scale: pillow(hr, scale, Image.Resampling.BICUBIC), "Pillow's BICUBIC"),
        (torch_antialiased, ROUNDED_ONCE),
        (lambda hr, scale: pillow(hr, scale, Image.Resampling.LANCZOS), "Pillow's LANCZOS"),
        (lambda hr, scale: pillow(hr, scale, Image.Resampling.BILINEAR), "Pillow's BILINEAR"),
        (lambda hr, scale: pillow(hr, scale, Image.Resampling.BOX), "Pillow's BOX"),
        (lambda hr, scale: matlab_resize(hr[..., ::-1], 1 / scale), "MATLAB's bicubic with red and blue swapped"),
    ],
)
def test_other_kernels_are_named(hr, scale, make, expected):
    lr = np.ascontiguousarray(make(hr, scale))
    assert not is_matlab_bicubic(hr, lr, scale)
    likeness = nearest_kernels(hr, lr, scale)
    assert expected in likeness.kernels
    assert str(likeness).startswith('looks like ') and expected in str(likeness)
    # Others share it only where they are the same thing: samples at the same places, or means of the same pixels.
    alone = expected.startswith(('bicubic', 'Pillow', 'MATLAB')) and not ('without' in expected and scale == 3)
    assert len(likeness.kernels) == 1 or not alone or expected == "Pillow's BOX"


@pytest.mark.parametrize('scale', SCALES)
def test_what_was_changed_afterwards_is_told_so(hr, scale):
    lr = matlab_resize(hr, 1 / scale)
    jpeg = cv2.imdecode(cv2.imencode('.jpg', lr, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_COLOR)
    noisy = np.clip(lr + np.random.default_rng(0).normal(0, 4, lr.shape), 0, 255).astype(np.uint8)
    for changed in (jpeg, noisy, np.roll(lr, 1, 1)):
        assert not is_matlab_bicubic(hr, changed, scale)
        assert str(nearest_kernels(hr, changed, scale)).startswith('made by no known kernel, or changed afterwards')
    assert f"nearest is MATLAB's bicubic or {ROUNDED_ONCE}" in str(nearest_kernels(hr, noisy, scale))


@pytest.mark.parametrize('side', [1, 2, 4, 5, 12])
def test_small_images(side):
    hr = np.random.default_rng(side).integers(0, 256, (2 * side, 2 * side, 3)).astype(np.uint8)
    assert is_matlab_bicubic(hr, matlab_resize(hr, 0.5), 2)
    other = opencv(hr, 2, cv2.INTER_NEAREST)
    assert not is_matlab_bicubic(hr, other, 2)
    assert "OpenCV's INTER_NEAREST" in nearest_kernels(hr, other, 2).kernels
