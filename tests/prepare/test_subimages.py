"""``prepare_data.py subimages``: BasicSR's places and names, for HR and LR alike, and BasicSR reads them."""

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from basicsr.data.paired_image_dataset import PairedImageDataset

from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.prepare.subimages import Grid

SIZES = {'0001': (100, 132), '0002': (96, 48), '0003': (36, 60), '0004': (49 * 2, 50)}


def image(name: str) -> np.ndarray:
    return np.random.default_rng(int(name)).integers(0, 256, (*SIZES[name], 3)).astype(np.uint8)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """HR and LR at x2 with DIV2K's names."""
    for folder in ('HR', 'X2'):
        (tmp_path / folder).mkdir()
    for name in SIZES:
        cv2.imwrite(str(tmp_path / 'HR' / f'{name}.png'), image(name))
        cv2.imwrite(str(tmp_path / 'X2' / f'{name}x2.png'), matlab_resize(image(name), 0.5))
    return tmp_path


@pytest.fixture
def cut(sets: Path, prepare_data: Any) -> Any:
    def run(
        *arguments: str, source: str = 'HR:X2', out: str = 'sub', size: int = 48, step: int = 24, **accident: Any
    ) -> Any:
        options = ('-o', out, '--size', str(size), '--step', str(step))
        return prepare_data('subimages', source, *options, *arguments, cwd=sets, **accident)

    return run


def read(path: Path) -> np.ndarray:
    found = cv2.imread(str(path))
    assert found is not None
    return found


def basicsrs_starts(side: int, size: int, step: int, thresh: int) -> list[int]:
    """Places as they follow from BasicSR's description: every ``step``, and the far edge if more than that is left."""
    starts = list(itertools.takewhile(lambda start: start + size <= side, itertools.count(0, step)))
    return [*starts, side - size] if side - starts[-1] - size > thresh else starts


@pytest.mark.parametrize(
    ('side', 'size', 'step', 'rest'), list(itertools.product((48, 49, 71, 72, 73, 100), (48, 40), (24, 48), (0, 1, 30)))
)
def test_places_are_basicsrs(side, size, step, rest):
    assert Grid(size, step, rest).starts(side) == basicsrs_starts(side, size, step, rest)


def test_default_places_on_a_photo_of_div2k():
    assert Grid().starts(2040) == [0, 240, 480, 720, 960, 1200, 1440, 1560]
    assert Grid().starts(1356) == [0, 240, 480, 720, 876]


def test_side_that_is_too_short_gives_one_of_all_of_it():
    assert Grid(48, 24, 0).starts(36) == [0]


def test_sub_images_are_named_row_by_row_and_pair(sets, cut):
    ended = cut()
    assert (ended.code, ended.err) == (0, '')
    expected_hr, expected_lr = {}, {}
    for name, (height, width) in SIZES.items():
        rows = basicsrs_starts(height, 48, 24, 0) if height >= 48 else [0]
        columns = basicsrs_starts(width, 48, 24, 0)
        lr = matlab_resize(image(name), 0.5)
        for number, (top, left) in enumerate(itertools.product(rows, columns), start=1):
            expected_hr[f'{name}_s{number:03d}.png'] = image(name)[top : top + 48, left : left + 48]
            expected_lr[f'{name}_s{number:03d}.png'] = lr[top // 2 : top // 2 + 24, left // 2 : left // 2 + 24]
    for folder, expected in (('HR', expected_hr), ('LRbicx2', expected_lr)):
        assert sorted(path.name for path in (sets / 'sub' / folder).iterdir()) == sorted(expected)
        for file, pixels in expected.items():
            np.testing.assert_array_equal(read(sets / 'sub' / folder / file), pixels)
    assert sorted(path.name for path in sets.iterdir()) == ['HR', 'X2', 'sub']


def test_basicsr_reads_them(sets, cut):
    assert cut().code == 0
    roots = {'dataroot_gt': str(sets / 'sub' / 'HR'), 'dataroot_lq': str(sets / 'sub' / 'LRbicx2')}
    options = {'phase': 'train', 'scale': 2, 'gt_size': 36, 'use_hflip': True, 'use_rot': True}
    dataset = PairedImageDataset({**roots, **options, 'io_backend': {'type': 'disk'}})
    assert len(dataset) == len(list((sets / 'sub' / 'HR').iterdir())) > 10
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample['gt'].shape == (3, 36, 36) and sample['lq'].shape == (3, 18, 18)


def test_several_scales_lmdbs_and_sub_folders(sets, cut, prepare_data):
    (sets / 'X4' / 'a').mkdir(parents=True)
    (sets / 'HR' / 'a').mkdir()
    (sets / 'X2' / 'a').mkdir()
    for name, sides in SIZES.items():
        height, width = (side // 4 * 4 for side in sides)
        cropped = image(name)[:height, :width]
        (sets / 'HR' / f'{name}.png').unlink()
        (sets / 'X2' / f'{name}x2.png').unlink()
        cv2.imwrite(str(sets / 'HR' / 'a' / f'{name}.png'), cropped)
        for scale in (2, 4):
            cv2.imwrite(str(sets / f'X{scale}' / 'a' / f'{name}x{scale}.png'), matlab_resize(cropped, 1 / scale))
    assert cut(source='HR:X2:X4').code == 0
    folders = {path.name: {file.name for file in path.iterdir()} for path in (sets / 'sub').iterdir() if path.is_dir()}
    assert folders['HR'] == folders['LRbicx2'] == folders['LRbicx4'] and len(folders) == 3
    assert 'a_0001_s001.png' in folders['HR']
    assert prepare_data('lmdb', 'HR:X2:X4', '--raw', cwd=sets).code == 0
    assert cut(source='HR.lmdb:X2.lmdb:X4.lmdb', out='from lmdb').code == 0
    for path in (sets / 'sub').rglob('*.png'):
        np.testing.assert_array_equal(read(path), read(sets / 'from lmdb' / path.relative_to(sets / 'sub')))


def refused(ended: Any, reason: str) -> None:
    assert (ended.code, ended.err) == (2, f'error: {reason}\n'), (ended.out, ended.err)


def test_what_does_not_pair_is_named_and_nothing_is_made(sets, cut):
    refused(cut(size=49), '--size 49: must be a multiple of 2')
    refused(cut(step=13), '--step 13: must be a multiple of 2')
    refused(cut(source='HR:gone'), 'gone: no such folder')
    refused(cut(source='HR:X2:X2'), 'X2: two folders of LR images of one scale')
    shutil.copytree(sets / 'X2', sets / 'Y')
    (sets / 'Y' / '0002x2.png').unlink()
    (sets / 'Y' / '0003x2.png').unlink()
    refused(cut(source='HR:Y'), 'Y: no LR image for 0002.png and 1 more')
    shutil.copytree(sets / 'X2', sets / 'Z')
    shutil.copy(sets / 'Z' / '0001x2.png', sets / 'Z' / '0009x2.png')
    refused(cut(source='HR:Z'), 'HR: no HR image for 0009x2.png')
    cv2.imwrite(str(sets / 'X2' / '0003x2.png'), np.zeros((18, 29, 3), np.uint8))
    refused(cut(), 'HR/0003.png: 60x36 pixels are not 2 times the 29x18 of X2/0003x2.png')
    (sets / 'empty').mkdir()
    refused(cut(source='empty'), 'empty: no images in this folder')
    (sets / 'HR' / 'a').mkdir()
    cv2.imwrite(str(sets / 'HR' / 'a' / 'b.png'), image('0001'))
    cv2.imwrite(str(sets / 'HR' / 'a_b.png'), image('0001'))
    refused(cut(source='HR'), 'HR: a/b.png and a_b.png would share names of sub-images; rename one')
    assert not (sets / 'sub').exists() and not list(sets.glob('.*'))


def test_broken_image_is_named_and_nothing_is_taken_for_whole(sets, cut):
    path = sets / 'X2' / '0003x2.png'
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    refused(cut(), 'X2/0003x2.png: not an image that can be decoded (broken or truncated)')
    assert not (sets / 'sub').exists()
    path.write_bytes(whole)
    assert cut().code == 0
    assert len(list((sets / 'sub' / 'HR').iterdir())) == len(list((sets / 'sub' / 'LRbicx2').iterdir()))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
    ('before', 'path'),
    [
        ('os.replace', '.sub.tmp/LRbicx2/.0001_s003.png.tmp'),
        ('os.replace', '.sub.tmp/HR/.0002_s002.png.tmp'),
        ('os.fsync', '.sub.tmp/HR/.0004_s001.png.tmp'),
        ('os.rename', '.sub.tmp'),
    ],
)
def test_killed_at_any_moment_it_goes_on(sets, cut, before, path):
    assert cut(out='other').code == 0
    assert cut(before=before, path=path).code == -9
    assert not (sets / 'sub').exists()
    assert cut().code == 0
    assert files(sets / 'sub') == files(sets / 'other')
    assert not list(sets.glob('.*'))


def test_what_is_there_is_neither_made_again_nor_overwritten(sets, cut):
    assert cut().code == 0
    before = {path: path.stat().st_mtime_ns for path in (sets / 'sub').rglob('*')}
    again = cut()
    assert again.code == 0 and 'sub: is there already, made from these images' in again.out
    refused(cut(step=48), 'sub: was made with step 24, not 48; choose another folder')
    os.utime(sets / 'X2' / '0002x2.png', (1, 1))
    refused(cut(), 'sub: was made before a change of X2/0002x2.png; choose another folder')
    refused(cut(out='HR'), 'HR: is there already, and not made by this command; choose another folder')
    assert {path: path.stat().st_mtime_ns for path in (sets / 'sub').rglob('*')} == before
