"""LR images made from HR images: once, rightly, and again only where something changed."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.lr_cache import default_cache, make_lr
from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.matlab_resize import matlab_resize

LONG_AGO = 1_000_000_000


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file: a file that was written again has another one."""
    files = [path for path in folder.rglob('*') if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def age(folder: Path) -> None:
    for path in folder.rglob('*.png'):
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def hr(tmp_path, make_images) -> FolderStore:
    """Three images whose sides are no multiples of 2 or 3, one of them in a sub-folder."""
    folder = make_images(tmp_path / 'HR', count=3, height=25, width=31)
    (folder / 'sub').mkdir()
    (folder / 'img3.png').rename(folder / 'sub' / 'img3.png')
    return FolderStore(folder)


def dataset(hr: FolderStore, scale: int, **options: object) -> PairedDataset:
    return PairedDataset({'phase': 'train', 'scale': scale, 'dataroot_gt': str(hr.root), 'gt_size': 12, **options})


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_lr_is_matlabs_bicubic_of_the_cropped_hr(hr, tmp_path, scale):
    made = make_lr(hr, hr.names(), scale, tmp_path / 'LR')
    assert made == {name: name for name in ('img1.png', 'img2.png', 'sub/img3.png')}
    for name, lr_name in made.items():
        image = read(hr.root / name)
        cropped = image[: 25 // scale * scale, : 31 // scale * scale]
        np.testing.assert_array_equal(read(tmp_path / 'LR' / lr_name), matlab_resize(cropped, 1 / scale))


def test_lr_of_a_jpeg_is_a_png(tmp_path):
    (tmp_path / 'HR').mkdir()
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'HR' / 'a.JPG'), image)
    assert make_lr(FolderStore(tmp_path / 'HR'), ['a.JPG'], 2, tmp_path / 'LR') == {'a.JPG': 'a.png'}
    decoded = read(tmp_path / 'HR' / 'a.JPG')
    np.testing.assert_array_equal(read(tmp_path / 'LR' / 'a.png'), matlab_resize(decoded, 0.5))


def test_default_cache_lies_beside_hr():
    assert default_cache('datasets/BSDS400', 2) == Path.cwd() / 'datasets' / 'BSDS400_LRbicx2'
    assert default_cache('datasets/BSDS400/', 3).name == 'BSDS400_LRbicx3'
    assert default_cache('.', 2) == Path.cwd().with_name(f'{Path.cwd().name}_LRbicx2')


def test_made_once(hr, tmp_path):
    make_lr(hr, hr.names(), 2, tmp_path / 'LR')
    before = states(tmp_path / 'LR')
    assert make_lr(hr, hr.names(), 2, tmp_path / 'LR') == {name: name for name in hr.names()}
    assert states(tmp_path / 'LR') == before


def test_only_what_changed_or_is_gone_is_made_again(hr, tmp_path):
    lr = tmp_path / 'LR'
    make_lr(hr, hr.names(), 2, lr)
    before = states(lr)
    cv2.imwrite(str(hr.root / 'img1.png'), 255 - read(hr.root / 'img1.png'))
    (lr / 'sub' / 'img3.png').unlink()
    make_lr(hr, hr.names(), 2, lr)
    after = states(lr)
    assert after['img2.png'] == before['img2.png']
    for name in ('img1.png', 'sub/img3.png'):
        assert after[name] != before[name]
        np.testing.assert_array_equal(read(lr / name), matlab_resize(read(hr.root / name)[:24, :30], 0.5))
    make_lr(hr, hr.names(), 2, lr)
    assert states(lr) == after


def test_hr_replaced_by_a_file_of_the_same_size_is_noticed(hr, tmp_path):
    bmp = hr.root / 'img1.bmp'
    cv2.imwrite(str(bmp), read(hr.root / 'img1.png'))
    make_lr(hr, ['img1.bmp'], 2, tmp_path / 'LR')
    size = bmp.stat().st_size
    cv2.imwrite(str(bmp), 255 - read(bmp))
    assert bmp.stat().st_size == size
    make_lr(hr, ['img1.bmp'], 2, tmp_path / 'LR')
    np.testing.assert_array_equal(read(tmp_path / 'LR' / 'img1.png'), matlab_resize(read(bmp)[:24, :30], 0.5))


def test_new_images_are_added(hr, tmp_path):
    make_lr(hr, ['img1.png'], 2, tmp_path / 'LR')
    before = states(tmp_path / 'LR')
    make_lr(hr, hr.names(), 2, tmp_path / 'LR')
    after = states(tmp_path / 'LR')
    assert after['img1.png'] == before['img1.png']
    assert {'img2.png', 'sub/img3.png'} <= after.keys()


def test_interrupted_run_goes_on_where_the_manifest_says_it_was(tmp_path, make_images):
    hr, lr = FolderStore(make_images(tmp_path / 'HR', count=60, height=8, width=8)), tmp_path / 'LR'
    names = hr.names()
    broken = hr.root / names[55]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-9])
    with pytest.raises(UserError, match=names[55]):
        make_lr(hr, names, 2, lr)
    assert set(json.loads((lr / 'made_from.json').read_text(encoding='utf-8'))) == set(names[:50])
    assert sorted(path.name for path in lr.glob('*.png')) == names[:55]
    age(lr)
    broken.write_bytes(whole)
    make_lr(hr, names, 2, lr)
    assert [name for name in names if (lr / name).stat().st_mtime == LONG_AGO] == names[:50]
    assert not list(lr.glob('.*'))


def test_runs_that_fill_one_cache_at_once_do_not_meet(tmp_path, make_images):
    hr, lr = FolderStore(make_images(tmp_path / 'HR', count=30, height=8, width=8)), tmp_path / 'LR'
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: make_lr(hr, hr.names(), 2, lr), range(4)))
    assert made == [{name: name for name in hr.names()}] * 4
    assert sorted(path.name for path in lr.iterdir()) == [*hr.names(), 'made_from.json']


@pytest.mark.parametrize('manifest', ['', '{"img1.png": [1', '[]', '5', '{"img1.png": 5}'])
def test_damaged_manifest_is_made_anew(hr, tmp_path, manifest):
    lr = tmp_path / 'LR'
    make_lr(hr, hr.names(), 2, lr)
    expected = read(lr / 'img1.png')
    age(lr)
    (lr / 'made_from.json').write_text(manifest, encoding='utf-8')
    make_lr(hr, hr.names(), 2, lr)
    assert all((lr / name).stat().st_mtime != LONG_AGO for name in hr.names())
    np.testing.assert_array_equal(read(lr / 'img1.png'), expected)
    assert set(json.loads((lr / 'made_from.json').read_text(encoding='utf-8'))) == set(hr.names())


def test_complete_cache_needs_no_writing(hr, tmp_path):
    lr = tmp_path / 'LR'
    make_lr(hr, hr.names(), 2, lr)
    shutil.rmtree(lr / 'sub')
    (lr / 'sub').write_text('in the way of the folder', encoding='utf-8')
    make_lr(hr, ['img1.png', 'img2.png'], 2, lr)
    with pytest.raises(UserError, match=f'{lr}: LR images cannot be written .*; set lq_cache to another folder'):
        make_lr(hr, hr.names(), 2, lr)


def test_cache_that_cannot_be_written_names_the_option(hr, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'/file/LR: LR images cannot be written \(Not a directory\); set lq_cache to'):
        dataset(hr, 2, lq_cache=str(tmp_path / 'file' / 'LR'))


def test_hr_smaller_than_the_scale_is_named(tmp_path):
    (tmp_path / 'HR').mkdir()
    cv2.imwrite(str(tmp_path / 'HR' / 'a.png'), np.zeros((9, 2, 3), np.uint8))
    with pytest.raises(UserError, match=r'HR/a.png: smaller than scale 3'):
        make_lr(FolderStore(tmp_path / 'HR'), ['a.png'], 3, tmp_path / 'LR')


def test_names_that_differ_in_the_extension_alone_are_refused(hr, tmp_path):
    cv2.imwrite(str(hr.root / 'img1.bmp'), read(hr.root / 'img1.png'))
    with pytest.raises(UserError, match=r'img1.bmp and img1.png would share one LR image; rename one'):
        make_lr(hr, hr.names(), 2, tmp_path / 'LR')
    assert not (tmp_path / 'LR').exists()


# In a data set


def test_dataset_without_lr_uses_the_cache(hr, tmp_path):
    made = dataset(hr, 2)
    lr = tmp_path / 'HR_LRbicx2'
    assert made.lq.root == lr
    assert [made.name(index) for index in range(len(made))] == ['img1', 'img2', 'sub/img3']
    before = states(lr)
    shown = PairedDataset({'phase': 'val', 'scale': 2, 'dataroot_gt': str(hr.root)})[2]
    assert states(lr) == before
    image = read(hr.root / 'sub' / 'img3.png')[:24, :30]
    np.testing.assert_array_equal(shown['gt'].numpy(), image[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255)
    lq = matlab_resize(image, 0.5)[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
    np.testing.assert_array_equal(shown['lq'].numpy(), lq)


def test_dataset_with_named_images_makes_those_alone(hr, tmp_path):
    made = dataset(hr, 2, names=['img2'], lq_cache=str(tmp_path / 'LR'))
    assert len(made) == 1
    assert sorted(path.name for path in (tmp_path / 'LR').iterdir()) == ['img2.png', 'made_from.json']


@pytest.mark.parametrize(('first', 'second'), [(2, 3), (3, 2)])
def test_cache_of_another_scale_is_told(hr, tmp_path, first, second):
    dataset(hr, first, lq_cache=str(tmp_path / 'LR'))
    told = rf'HR/img1.png: 31x25 pixels are not {second} times the .* of {tmp_path}/LR/img1.png'
    with pytest.raises(UserError, match=told):
        dataset(hr, second, lq_cache=str(tmp_path / 'LR'))


def test_lr_images_are_made_from_folders_only(tmp_path):
    root = tmp_path / 'HR.lmdb'
    root.mkdir()
    (root / 'meta_info.txt').write_text('a.png (16,16,3) 1\n', encoding='utf-8')
    with pytest.raises(UserError, match=r'HR.lmdb: dataroot_lq is missing; LR images can be made from a folder only'):
        PairedDataset({'phase': 'val', 'scale': 2, 'dataroot_gt': str(root)})
