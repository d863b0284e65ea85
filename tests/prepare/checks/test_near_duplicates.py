"""Images that show the same are found, whatever was done to one of them, and others are not."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.prepare.checks.near_duplicates import Described, describe, find_points, near_duplicates, normal_gray

Image = np.ndarray


@pytest.fixture(scope='module')
def photos() -> list[Image]:
    """Five photos, BGR."""
    found = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.hubble_deep_field()]
    return [np.ascontiguousarray(image[..., ::-1]) for image in found]


def described(images: list[Image]) -> list[Described]:
    return [describe(image, lambda image=image: image) for image in images]


def scaled(image: Image, factor: float) -> Image:
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)


def jpeg(image: Image, quality: int) -> Image:
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def part(image: Image, sides: float) -> Image:
    """The middle of an image, of these parts of its sides."""
    height, width = (round(side * sides) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width].copy()


CHANGES: dict[str, tuple[Callable[[Image], Image], float, bool]] = {  # how, relative size, mirrored
    'same': (lambda image: image, 1, False),
    'quarter of the size': (lambda image: scaled(image, 0.25), 0.25, False),
    'twice the size': (lambda image: scaled(image, 2), 2, False),
    'bad JPEG': (lambda image: jpeg(image, 20), 1, False),
    'mirrored': (lambda image: image[:, ::-1].copy(), 1, True),
    'half of each side': (lambda image: part(image, 0.5), 1, False),
    'part, smaller': (lambda image: scaled(part(image, 0.6), 0.6), 0.6, False),
    'part, larger, mirrored, JPEG': (lambda image: jpeg(scaled(part(image, 0.6), 1.3)[:, ::-1].copy(), 50), 1.3, True),
    'gray': (lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), 1, False),
    'brighter': (lambda image: cv2.convertScaleAbs(image, alpha=0.7, beta=60), 1, False),
    'turned a little': (
        lambda image: cv2.warpAffine(image, cv2.getRotationMatrix2D((200, 150), 4, 1), image.shape[1::-1]),
        1,
        False,
    ),
    'turned a quarter': (lambda image: np.rot90(image).copy(), 1, False),
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('swapped', [False, True])
def test_changed_copies_are_found_and_nothing_else(photos, change, swapped):
    how, size, mirrored = CHANGES[change]
    changed = [how(image) for image in photos[:4]]
    # Whichever set is the larger one, it is about the first that the result speaks.
    sets = (described(photos), described(changed)) if swapped else (described(changed), described(photos))
    found = near_duplicates(*sets)
    assert [pair[:2] for pair in found] == [(number, number) for number in range(4)]
    for _, _, alike in found:
        assert alike.size == pytest.approx(1 / size if swapped else size, rel=0.03)
        assert alike.mirrored == mirrored
        assert alike.agreement > 0.8
        assert alike.part > 0.8 or 'part' in change or 'half' in change or 'turned' in change
    assert near_duplicates(*sets) == found


def test_part_is_told_of_the_first_image(photos):
    whole, quarter = described(photos[:1]), described([part(photos[0], 0.5)])
    assert near_duplicates(quarter, whole)[0][2].part > 0.9
    assert near_duplicates(whole, quarter)[0][2].part == pytest.approx(0.25, abs=0.05)
    assert str(near_duplicates(quarter, whole)[0][2]).endswith('% of it, at 1.00 times the size; agreement 1.00')


def test_all_parts_of_an_image_are_found(photos):
    image = photos[0]
    parts = [image[top : top + 256, left : left + 256] for top in (0, 128, 256) for left in (0, 128, 256)]
    found = near_duplicates(described([*photos[1:], *parts]), described([image]))
    assert [pair[:2] for pair in found] == [(4 + number, 0) for number in range(9)]


def test_images_without_structure_are_like_none(photos):
    rng = np.random.default_rng(0)
    shade = np.tile(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (100, 1, 3))
    plain = [np.full((64, 64, 3), 200, np.uint8), shade, np.zeros((3, 3, 3), np.uint8)]
    noise = [rng.integers(0, 256, (200, 200, 3)).astype(np.uint8) for _ in range(2)]
    assert near_duplicates(described(plain), described([*plain, *noise, *photos])) == []
    assert near_duplicates(described(noise[:1]), described([noise[1], *photos])) == []
    assert near_duplicates([], described(photos)) == near_duplicates(described(photos), []) == []


def test_images_are_brought_to_a_common_size():
    for (height, width), expected in {(100, 50): (256, 128), (300, 400): (300, 400), (1000, 2000): (320, 640)}.items():
        gray, factor = normal_gray(np.zeros((height, width, 3), np.uint8))
        assert gray.shape == expected and factor == expected[0] / height
    points = find_points(np.zeros((64, 64), np.uint8))
    assert points.places.shape == (0, 2) and points.descriptors.shape == (0, 32)


@pytest.fixture(scope='module')
def training_photos(benchmark_data: Path) -> list[Image]:
    folder = benchmark_data / 'BSDS400'
    if not folder.is_dir():
        pytest.skip(f'BSDS400 is not in {benchmark_data}')
    store = FolderStore(folder)
    return [store.read(name) for name in store.names()[::8]]


def test_benchmarks_are_not_in_other_photos(benchmark_data, training_photos):
    for name in ('Set5', 'Set14'):
        store = FolderStore(benchmark_data / name / 'HR' / 'x2')
        images = [store.read(image) for image in store.names()]
        assert near_duplicates(described(training_photos), described(images)) == []


def test_image_of_a_benchmark_is_found_among_training_photos(benchmark_data, training_photos):
    """Set5's *woman*, 228 x 344 pixels, is a photo of BSDS500 that has 321 x 481."""
    woman = cv2.imread(str(benchmark_data / 'Set5' / 'HR' / 'x2' / 'img_005.png'))
    others = [
        jpeg(scaled(woman, 481 / 344), 90),
        scaled(woman, 481 / 344)[60:400, 20:300],
        jpeg(part(scaled(woman, 1.2), 0.6)[:, ::-1].copy(), 70),
    ]
    store = FolderStore(benchmark_data / 'Set5' / 'HR' / 'x2')
    tests = described([store.read(name) for name in store.names()])
    found = near_duplicates(described([*training_photos, *others]), tests)
    count = len(training_photos)
    assert [pair[:2] for pair in found] == [(count, 4), (count + 1, 4), (count + 2, 4)]
    assert [pair[2].size for pair in found] == pytest.approx([481 / 344, 481 / 344, 1.2], rel=0.03)
    assert [pair[2].mirrored for pair in found] == [False, False, True]
