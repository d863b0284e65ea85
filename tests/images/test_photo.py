"""Photos of all kinds: which files are some, and that their pixels follow the stated rules."""

import os
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.messages import told
from PIL import Image, ImageOps

from basicsr_clsd.images.photo import find_photos, read_photo
from basicsr_clsd.prepare.checks.images import stored_form

ORIENTATION = 0x0112


def noise(channels: int, kind: type = np.uint8, height: int = 7, width: int = 10) -> np.ndarray:
    rng = np.random.default_rng(channels)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return rng.integers(0, np.iinfo(kind).max + 1, shape).astype(kind)


def written(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def told_of(path: Path) -> str:
    line = told(read_photo, path)
    assert line.startswith(f'{path}: ')
    return line.removeprefix(f'{path}: ')


def over_white(colours: np.ndarray, alpha: np.ndarray, white: int) -> np.ndarray:
    """Colours laid on white, by fractions: exact, and rounded half up."""
    numerator = 255 * (colours.astype(object) * alpha + white * (white - alpha.astype(object)))
    return ((2 * numerator + white**2) // (2 * white**2)).astype(np.uint8)


# Which files are photos


def test_photos_are_told_by_content_or_extension(tmp_path):
    (tmp_path / 'trip' / 'day 2').mkdir(parents=True)
    for name in ('b.png', 'a.JPG', 'trip/day 2/c.tif', 'trip/d.jp2'):
        content = cv2.imencode(Path(name).suffix.lower(), noise(3, height=40, width=40))[1]
        (tmp_path / name).write_bytes(content.tobytes())
    (tmp_path / 'no extension').write_bytes((tmp_path / 'b.png').read_bytes())
    for name in ('broken.jpeg', 'phone.HEIC', 'camera.dng'):  # photos by their names: to be told, not passed over
        (tmp_path / name).write_bytes(b'no image')
    for name in ('notes.txt', 'Thumbs.db', 'trip/film.mp4'):
        (tmp_path / name).write_bytes(b'no image')
    (tmp_path / '.cache').mkdir()
    written(tmp_path / '.cache' / 'x.png', noise(3))
    written(tmp_path / '.hidden.png', noise(3))
    photos, others = find_photos(tmp_path)
    expected = ['a.JPG', 'b.png', 'broken.jpeg', 'camera.dng', 'no extension', 'phone.HEIC', 'trip/d.jp2']
    assert photos == [*expected, 'trip/day 2/c.tif']
    assert others == ['Thumbs.db', 'notes.txt', 'trip/film.mp4']


def test_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b'caf\xe9.png')
    try:
        (tmp_path / name).write_bytes(cv2.imencode('.png', noise(3))[1].tobytes())
    except OSError:
        pytest.skip('this file system takes UTF-8 alone')
    (tmp_path / os.fsdecode(b'n\xe9ant')).write_bytes(b'no image')
    photos, others = find_photos(tmp_path)
    assert (photos, others) == ([name], [os.fsdecode(b'n\xe9ant')])
    np.testing.assert_array_equal(read_photo(tmp_path / name).pixels, noise(3))


# Pixels


@pytest.mark.parametrize('extension', ['png', 'tif', 'bmp', 'ppm', 'jp2'])
def test_8_bit_colours_stay_as_they_are(tmp_path, extension):
    image = noise(3, height=40, width=48)
    parameters = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if extension == 'jp2' else []
    assert cv2.imwrite(str(tmp_path / f'a.{extension}'), image, parameters)
    photo = read_photo(tmp_path / f'a.{extension}')
    np.testing.assert_array_equal(photo.pixels, image)
    assert photo.changes == ()


def test_16_bits_are_rounded_to_8(tmp_path):
    """All 65,536 values: the nearest of 0, 257, 514, ..."""
    image = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    photo = read_photo(written(tmp_path / 'a.png', np.stack([image, image.T, image[::-1]], -1)))
    expected = (2 * image.astype(int) + 257) // 514
    np.testing.assert_array_equal(photo.pixels, np.stack([expected, expected.T, expected[::-1]], -1))
    assert photo.changes == ('16 bits rounded to 8',)


@pytest.mark.parametrize('extension', ['png', 'tif'])
def test_gray_becomes_three_equal_channels(tmp_path, extension):
    gray, deep = noise(1), noise(1, np.uint16)
    photo = read_photo(written(tmp_path / f'a.{extension}', gray))
    np.testing.assert_array_equal(photo.pixels, np.stack([gray] * 3, -1))
    expected = (2 * deep.astype(int) + 257) // 514
    photo = read_photo(written(tmp_path / f'b.{extension}', deep))
    np.testing.assert_array_equal(photo.pixels, np.stack([expected] * 3, -1))


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_opaque_alpha_is_dropped(tmp_path, kind):
    image = noise(4, kind)
    image[..., 3] = np.iinfo(kind).max
    photo = read_photo(written(tmp_path / 'a.png', image))
    white = np.iinfo(kind).max
    np.testing.assert_array_equal(photo.pixels, over_white(image[..., :3], image[..., 3:], white))
    assert photo.changes == (() if kind == np.uint8 else ('16 bits rounded to 8',))
    if kind == np.uint8:
        np.testing.assert_array_equal(photo.pixels, image[..., :3])


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
@pytest.mark.parametrize('extension', ['png', 'tif'])
def test_transparent_parts_are_laid_on_white(tmp_path, kind, extension):
    image, white = noise(4, kind), np.iinfo(kind).max
    image[0, 0], image[0, 1] = (0, 0, 0, 0), (0, 0, 0, white)
    photo = read_photo(written(tmp_path / f'a.{extension}', image))
    assert photo.pixels[0, 0].tolist() == [255] * 3 and photo.pixels[0, 1].tolist() == [0] * 3
    np.testing.assert_array_equal(photo.pixels, over_white(image[..., :3], image[..., 3:], white))
    assert photo.changes[-1] == 'transparent parts laid on white'


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.fromarray(np.repeat([[0], [1]], 3, 1).astype(np.uint8), 'P')
    image.putpalette([255, 0, 0, 0, 0, 255])
    for extension in ('png', 'gif'):
        image.save(tmp_path / f'a.{extension}', transparency=1)
        pixels = read_photo(tmp_path / f'a.{extension}').pixels
        assert pixels[:, 0].tolist() == [[0, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp', 'tif'])
def test_turned_as_exif_asks(tmp_path, extension, orientation):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)).resize(
        (48, 32), Image.Resampling.BICUBIC
    )
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f'a.{extension}'
    coarse.save(path, exif=exif, **({'lossless': True} if extension == 'webp' else {}))
    with Image.open(path) as image:
        if extension == 'tif':  # some versions of Pillow turn these by themselves
            turned = ImageOps.exif_transpose(tagged(coarse, orientation))
        else:
            turned = ImageOps.exif_transpose(image)
    expected = np.asarray(turned.convert('RGB'))[..., ::-1].astype(int)
    pixels = read_photo(path).pixels
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= (3 if extension == 'jpg' else 0)


def tagged(image: Image.Image, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = BytesIO()
    image.save(content, 'PNG', exif=exif)
    return Image.open(content)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('extension', ['png', 'webp', 'tif'])
def test_alpha_is_turned_with_its_colours(tmp_path, extension, orientation):
    image = noise(4)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {'lossless': True, 'exact': True} if extension == 'webp' else {}
    Image.fromarray(image).save(tmp_path / f'a.{extension}', exif=exif, **options)
    turned = np.asarray(ImageOps.exif_transpose(tagged(Image.fromarray(image), orientation)))
    expected = over_white(turned[..., 2::-1], turned[..., 3:], 255)
    np.testing.assert_array_equal(read_photo(tmp_path / f'a.{extension}').pixels, expected)


def test_cmyk_jpeg_is_read_in_its_colours(tmp_path):
    Image.new('CMYK', (16, 16), (0, 255, 255, 0)).save(tmp_path / 'a.jpg')
    blue, green, red = read_photo(tmp_path / 'a.jpg').pixels[8, 8]
    assert red > 200 and green < 80 and blue < 80


@pytest.mark.parametrize('extension', ['gif', 'png', 'tif', 'webp'])
def test_the_first_of_several_frames_is_told(tmp_path, extension):
    frames = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (200, 100, 50)]
    path = tmp_path / f'a.{extension}'
    frames[0].save(path, save_all=True, append_images=frames[1:])
    photo = read_photo(path)
    assert photo.changes == ('first of 3 frames',)
    assert abs(photo.pixels.astype(int) - 200).max() <= 2
    assert stored_form(path.read_bytes()) is not None and 'first of 3 frames' in str(stored_form(path.read_bytes()))


# What cannot be used


def test_what_cannot_be_used_is_told(tmp_path):
    float_image = np.ones((8, 8, 3), np.float32)
    for extension in ('tif', 'hdr'):
        assert 'float32; convert it to 8 or 16 bits' in told_of(written(tmp_path / f'a.{extension}', float_image))
    (tmp_path / 'a.DNG').write_bytes((tmp_path / 'a.tif').read_bytes())
    assert told_of(tmp_path / 'a.DNG') == "a camera's raw file; convert it to PNG, TIFF or JPEG first"
    for extension in ('png', 'jpg', 'webp', 'bmp'):
        path = written(tmp_path / f'b.{extension}', noise(3, height=64, width=64))
        path.write_bytes(path.read_bytes()[:-300])
        assert 'truncated' in told_of(path)
    (tmp_path / 'c.heic').write_bytes(b'\0\0\0\x18ftypheic')
    (tmp_path / 'd.png').write_bytes(b'')
    (tmp_path / 'e.png').mkdir()
    assert 'not an image that can be decoded' in told_of(tmp_path / 'c.heic')
    assert 'not an image that can be decoded' in told_of(tmp_path / 'd.png')
    assert told_of(tmp_path / 'e.png') == 'cannot be read: Is a directory'
    assert told_of(tmp_path / 'f.png') == 'cannot be read: No such file or directory'
