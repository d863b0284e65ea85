"""MATLAB's bicubic, against the published LR images and against a direct implementation of the formula."""

from fractions import Fraction
from math import ceil, floor

import cv2
import numpy as np
import pytest
from basicsr.utils.matlab_functions import imresize
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr_clsd.images.matlab_resize import matlab_resize

BORDERS = ('replicate', 'symmetric')
scales = st.sampled_from([Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2, 3), Fraction(3, 10)]) | (
    st.sampled_from([Fraction(1), Fraction(3, 2), Fraction(2), Fraction(3), Fraction(7, 2), Fraction(4)])
)
direct = settings(deadline=None, max_examples=60, derandomize=True)


def cubic(x: Fraction) -> Fraction:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return Fraction(-1, 2) * (x**3 - 5 * x**2 + 8 * x - 4) if x <= 2 else Fraction(0)


def source(position: int, length: int, border: str) -> int:
    """The pixel 0..length-1 that stands for a position outside."""
    if border == 'replicate':
        return min(max(position, 0), length - 1)
    while not 0 <= position < length:
        position = -1 - position if position < 0 else 2 * length - 1 - position
    return position


def resized_line(line: list[float], scale: Fraction, antialias: bool, border: str) -> list[float]:
    """One row or column, before rounding; exact weights. Pixel p (from 0) covers the interval from p to p + 1."""
    wide = min(scale, Fraction(1)) if antialias else Fraction(1)
    out = []
    for place in range(ceil(len(line) * scale)):
        centre = (place + Fraction(1, 2)) / scale - Fraction(1, 2)
        reach = 2 / wide
        weights = {p: cubic((p - centre) * wide) for p in range(floor(centre - reach), ceil(centre + reach) + 1)}
        total = sum(weights.values())
        out.append(float(sum(w / total * Fraction(line[source(p, len(line), border)]) for p, w in weights.items())))
    return out


def resized(image: np.ndarray, scale: Fraction, antialias: bool, border: str) -> np.ndarray:
    """The whole formula on a gray float image: rows, then columns."""
    rows = np.array([resized_line(list(column), scale, antialias, border) for column in image.T]).T
    return np.array([resized_line(list(row), scale, antialias, border) for row in rows])


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('name', ['Set5', 'Set14'])
def test_makes_the_published_lr_images_bit_for_bit(benchmark_data, name, scale):
    files = sorted((benchmark_data / name / 'HR' / f'x{scale}').glob('*.png'))
    assert len(files) == {'Set5': 5, 'Set14': 14}[name]
    for path in files:
        hr, lr = (cv2.imread(str(file)) for file in (path, benchmark_data / name / f'LRbicx{scale}' / path.name))
        assert hr is not None
        np.testing.assert_array_equal(matlab_resize(hr, 1 / scale), lr, err_msg=path.name)


@given(st.data(), scales, st.booleans(), st.sampled_from(BORDERS))
@direct
def test_float_image_against_the_formula(data, scale, antialias, border):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    image = np.random.default_rng(data.draw(st.integers(0, 99))).uniform(-1, 2, shape)
    ours = matlab_resize(image, float(scale), antialias=antialias, border=border)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, resized(image, scale, antialias, border), rtol=0, atol=1e-12)


@given(st.data(), scales, st.booleans(), st.sampled_from(BORDERS))
@direct
def test_line_of_bytes_is_the_formula_rounded_half_up_and_clipped(data, scale, antialias, border):
    line = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=12))
    exact = np.array(resized_line([float(value) for value in line], scale, antialias, border))
    column = matlab_resize(np.array(line, np.uint8)[:, None], float(scale), antialias=antialias, border=border)
    assert column.dtype == np.uint8
    # Where the exact value is a half, rounding errors of MATLAB's summation decide.
    tied = np.abs(exact % 1 - 0.5) < 1e-9
    np.testing.assert_array_equal(column[:, 0][~tied], np.clip(np.floor(exact + 0.5), 0, 255)[~tied])
    assert np.all(np.abs(column[:, 0] - np.clip(exact, 0, 255))[tied] <= 0.5 + 1e-9)
    # Across, the line is one pixel wide and stays what it is.
    assert (column == column[:, :1]).all()


@given(st.data(), scales, st.booleans(), st.sampled_from(BORDERS))
@direct
def test_image_of_bytes_is_made_of_lines_rows_first(data, scale, antialias, border):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))
    image = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, shape).astype(np.uint8)

    def line(values: np.ndarray) -> np.ndarray:
        return matlab_resize(values[:, None], float(scale), antialias=antialias, border=border)[:, 0]

    rows = np.apply_along_axis(line, 0, image)
    expected = np.apply_along_axis(line, 1, rows)
    ours = matlab_resize(image, float(scale), antialias=antialias, border=border)
    np.testing.assert_array_equal(ours, expected)
    assert ours.flags.c_contiguous


def test_order_of_the_passes_matters_and_is_rows_first():
    """A value that is clipped after the first pass: the other order gives other bytes."""
    image = np.random.default_rng(0).choice([0, 255], (12, 12)).astype(np.uint8)
    assert (matlab_resize(image, 0.5) != matlab_resize(image.T, 0.5).T).any()


def test_agrees_with_basicsrs_resize_where_that_is_right():
    """BasicSR mirrors at the border and does not round: so does this, when it is told to and given floats."""
    image = np.random.default_rng(0).random((31, 26, 3)).astype(np.float32)
    for scale in (0.5, 1 / 3, 2, 3):
        ours = matlab_resize(image, scale, border='symmetric')
        np.testing.assert_allclose(ours, imresize(image, scale), rtol=0, atol=1e-5)


@given(st.integers(0, 255), scales, st.booleans(), st.sampled_from(BORDERS), st.integers(1, 9), st.integers(1, 9))
@direct
def test_constant_image_stays_constant(value, scale, antialias, border, height, width):
    image = np.full((height, width, 3), value, np.uint8)
    ours = matlab_resize(image, float(scale), antialias=antialias, border=border)
    assert ours.shape == (ceil(height * scale), ceil(width * scale), 3)
    assert (ours == value).all()
    floats = matlab_resize(image / 255.0, float(scale), antialias=antialias, border=border)
    np.testing.assert_allclose(floats, value / 255.0, rtol=0, atol=1e-14)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.float64])
def test_gray_image_is_each_channel_of_a_colour_image(dtype):
    gray = (np.random.default_rng(0).random((13, 10)) * 255).astype(dtype)
    ours = matlab_resize(gray, 1 / 3)
    assert ours.shape == (5, 4)
    np.testing.assert_array_equal(np.stack([ours] * 3, -1), matlab_resize(np.stack([gray] * 3, -1), 1 / 3))


def test_float_image_is_neither_clipped_nor_rounded():
    image = np.zeros((8, 8))
    image[:, 4:] = 1
    enlarged = matlab_resize(image, 2)
    assert enlarged.min() < -0.01 and enlarged.max() > 1.01


@pytest.mark.parametrize(('side', 'scale', 'expected'), [(100, 0.29, 29), (7, 1 / 3, 3), (9, 1 / 3, 3), (10, 0.1, 1)])
def test_size_is_the_product_rounded_up_but_for_rounding_errors(side, scale, expected):
    assert matlab_resize(np.zeros((side, 1)), scale).shape[0] == expected


@pytest.mark.parametrize('dtype', [np.uint16, np.int64, bool, complex])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match='takes uint8 or floating point images'):
        matlab_resize(np.zeros((4, 4), dtype), 0.5)


def test_input_is_not_changed():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    before = image.copy()
    matlab_resize(image, 0.5)
    np.testing.assert_array_equal(image, before)
