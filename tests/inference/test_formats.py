"""What each format holds: the table of ``docs/inference.md``, cell by cell."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.header import read_header
from basicsr_clsd.images.metadata import Metadata
from basicsr_clsd.images.photo import read_picture
from basicsr_clsd.images.writer import check_format, not_held, write_picture

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'inference.md'
EXTENSIONS = {'PNG': '.png', 'JPEG': '.jpg', 'TIFF': '.tif', 'WebP': '.webp', 'BMP': '.bmp', 'GIF': '.gif'}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
DATE, MAKER, EXPOSURE, LATITUDE, NORTH = 0x9003, 0x010F, 0x829A, 0x0002, 0x0001
PICTURE, PLACE = 0x8769, 0x8825


def table() -> list[tuple[str, dict[str, str]]]:
    lines = PAGE.read_text(encoding='utf-8').splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith('| format | bits |'))
    rows = []
    for line in lines[start:]:
        if not line.startswith('|'):
            break
        rows.append([cell.strip() for cell in line.strip('|').split('|')])
    return [(row[0], dict(zip(rows[0][1:], row[1:], strict=True))) for row in rows[2:]]


TABLE = table()
WRITTEN = [(name, row) for name, row in TABLE if row['bits'] != 'not written']


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def exif() -> bytes:
    content = Image.Exif()
    content[MAKER] = 'Maker'
    content[0x0112] = 6
    content[PICTURE] = {DATE: '2024:05:06 07:08:09', EXPOSURE: 1 / 125, 0xA002: 5, 0xA003: 4}
    content[PLACE] = {NORTH: 'N', LATITUDE: (48.0, 51.0, 29.5)}
    return content.tobytes()


def test_the_table_has_every_format():
    assert [name for name, _ in TABLE] == list(EXTENSIONS)


@pytest.mark.parametrize(('name', 'row'), WRITTEN)
def test_pixels(tmp_path, name, row):
    path = tmp_path / f'a{EXTENSIONS[name]}'
    assert row['alpha'] in ('kept', 'refused') and row['bits'] in ('8', '8, 16')
    for channels in (1, 2, 3, 4):
        for dtype in (np.uint8, np.uint16):
            image = noise(35, 20, channels, dtype=dtype)
            held = (channels in (1, 3) or row['alpha'] == 'kept') and (
                dtype == np.uint8 or '16' in row['bits'].split(', ')
            )
            if not held:
                with pytest.raises(UserError, match='cannot hold'):
                    check_format(path, *image.shape, image.dtype)
                continue
            check_format(path, *image.shape, image.dtype)
            write_picture([image[:3], image[3:]], path, image.shape, image.dtype, Metadata())
            found = read_picture(path).pixels
            assert found.dtype == dtype
            if found.shape[2] > channels:  # formats without gray, or without gray and alpha
                image = image[..., [0, 0, 0, 1]] if channels == 2 else image.repeat(3, 2)
            if name == 'JPEG':
                assert found.shape == image.shape
            else:
                np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(('name', 'row'), WRITTEN)
def test_what_goes_with_the_pixels(photos, model, run_command, tmp_path, name, row):
    Image.fromarray(noise(4, 5, 3)).save(photos / 'a.jpg', exif=exif(), icc_profile=PROFILE, dpi=(300, 200))
    command = ('infer', '-i', 'photos', '-m', model, '--format', EXTENSIONS[name])
    ended = run_command(*command, '-o', 'out', cwd=tmp_path)
    assert ended.code == 0, ended.err
    path = tmp_path / 'out' / f'a_x2{EXTENSIONS[name]}'
    with Image.open(path) as made:
        made.load()
        found, profile = made.getexif(), made.info.get('icc_profile')
        picture, place = dict(found.get_ifd(PICTURE)), dict(found.get_ifd(PLACE))
        assert made.size == (8, 10)  # turned, as EXIF asked
    header = read_header(path)
    assert header is not None and header.orientation == 1
    assert row['ICC profile'] == ('kept' if profile == PROFILE else 'told' if 'its colour profile' in ended.out else '')
    kept = (
        found.get(MAKER) == 'Maker'
        and picture.get(DATE) == '2024:05:06 07:08:09'
        and float(picture[EXPOSURE]) == pytest.approx(1 / 125)
        and (picture[0xA002], picture[0xA003]) == (8, 10)
        and place.get(NORTH) == 'N'
        and [float(value) for value in place[LATITUDE]] == [48, 51, 29.5]
    )
    assert row['EXIF'] == ('kept' if kept else 'told' if 'its EXIF data' in ended.out else '')
    assert row['DPI'] == ('kept' if header.metadata.dpi == pytest.approx((300, 200), abs=0.02) else '')
    assert run_command(*command, '-o', 'bare', '--strip', cwd=tmp_path).code == 0
    header = read_header(tmp_path / 'bare' / path.name)
    assert header is not None
    assert header.metadata == Metadata(PROFILE if row['ICC profile'] == 'kept' else None)


@pytest.mark.parametrize(('name', 'row'), TABLE)
def test_frames(photos, model, expected, run_command, tmp_path, name, row):
    several = row['frames'] == 'first or all'
    frames = [Image.fromarray(np.full((6, 6, 3), level, np.uint8)) for level in (0, 120, 255)]
    options = {'lossless': True} if name == 'WebP' else {}
    path = photos / f'a{EXTENSIONS[name]}'
    frames[0].save(path, **({'save_all': True, 'append_images': frames[1:], **options} if several else {}))
    ended = run_command('infer', '-i', 'photos', '-o', 'out', '-m', model, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ('first of 3 frames; --frames for all' in ended.out) == several
    # Frames without transparency have none, whatever the reader makes of them.
    assert run_command('infer', '-i', 'photos', '-o', 'jpg', '-m', model, '--format', 'jpg', cwd=tmp_path).code == 0
    ended = run_command('infer', '-i', 'photos', '-o', 'all', '-m', model, '--frames', cwd=tmp_path)
    assert ended.code == 0, ended.err
    made = sorted(each.name for each in (tmp_path / 'all').iterdir())
    assert made == ([f'a_{number}_x2.png' for number in (1, 2, 3)] if several else ['a_x2.png'])
    for number, level in enumerate((0, 120, 255)[: len(made)]):
        wanted = expected(np.full((6, 6, 3), level, np.uint8))
        with Image.open(tmp_path / 'all' / made[number]) as image:
            found = np.asarray(image.convert('RGB')).astype(int)
        assert np.abs(found - wanted).max() <= (8 if name == 'JPEG' else 2)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / 'photos'
    folder.mkdir()
    return folder


SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 9), st.integers(1, 4))


@settings(deadline=None, max_examples=60)
@given(
    shape=SHAPES,
    dtype=st.sampled_from([np.uint8, np.uint16]),
    extension=st.sampled_from(['.png', '.tif']),
    strip=st.integers(1, 70),
    profile=st.sampled_from([None, PROFILE]),
    dpi=st.none() | st.integers(1, 2400),
)
def test_what_is_written_is_read_again(shape, dtype, extension, strip, profile, dpi):
    """Any size, any cut into strips; PNG and TIFF hold it all."""
    image = noise(*shape, dtype=dtype)
    metadata = Metadata(profile, None, None if dpi is None else (float(dpi), float(dpi)))
    with TemporaryDirectory() as folder:
        path = Path(folder, f'a{extension}')
        assert not_held(path, metadata) == []
        strips = (image[row : row + strip] for row in range(0, len(image), strip))
        write_picture(strips, path, image.shape, image.dtype, metadata)
        found = read_picture(path)
    if extension == '.tif' and shape[2] == 2:  # few readers know gray with alpha
        image = image[..., [0, 0, 0, 1]]
    np.testing.assert_array_equal(found.pixels, image)
    assert found.metadata.profile == profile
    assert found.metadata.dpi == (None if dpi is None else pytest.approx((dpi, dpi), abs=0.02))


def test_a_page_of_16_bits_is_read_as_such(tmp_path):
    import cv2  # noqa: PLC0415

    pages = [noise(6, 7, 3, dtype=np.uint16), noise(3, 5, 1, dtype=np.uint16), noise(6, 7, 1)]
    assert cv2.imwritemulti(str(tmp_path / 'a.tif'), [page[..., ::-1].copy() for page in pages])
    for number, page in enumerate(pages):
        found = read_picture(tmp_path / 'a.tif', number)
        assert found.frames == 3
        np.testing.assert_array_equal(found.pixels, page)
