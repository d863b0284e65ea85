"""``prepare_data.py check``: all that is wrong with data sets is told, in one list, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.prepare.lmdb_build import build_png_lmdb, build_raw_lmdb


def structured(number: int, height: int = 48, width: int = 60) -> np.ndarray:
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (height // 4, width // 4, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_pairs(
    root: Path, *numbers: int, scales: tuple[int, ...] = (2, 3), hr: str = 'HR', lr: str = 'LRbicx{}'
) -> None:
    for number in numbers:
        image = structured(number)
        save(root / hr / f'i{number}.png', image)
        for scale in scales:
            save(root / lr.format(scale) / f'i{number}.png', matlab_resize(image, 1 / scale))


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def check(tmp_path: Path, prepare_data: Any) -> Any:
    """``check(*arguments)``: exit code, and (kind, path, message) of each line."""

    def run(*arguments: str) -> tuple[int, list[tuple[str, ...]]]:
        ended = prepare_data('check', *arguments, '--json', 'found.json', cwd=tmp_path)
        assert ended.err == '', ended.err
        *lines, summary = ended.out.splitlines()
        found = json.loads((tmp_path / 'found.json').read_text())
        told = [tuple(problem[key] for key in ('kind', 'path', 'message')) for problem in found['problems']]
        assert lines == [f'{kind}: {path}: {message}' for kind, path, message in told]
        assert summary.startswith(f'{found["images"]} images looked at: ')
        assert summary.endswith('nothing is wrong') == (not told)
        return ended.code, told

    return run


def kinds(found: list[tuple[str, ...]]) -> dict[str, str]:
    """The kind of problem by path, of those that have one problem each."""
    assert len({path for _, path, _ in found}) == len(found), found
    return {path: kind for kind, path, _ in found}


# Clean sets


def test_clean_sets_are_clean(tmp_path, check):
    write_pairs(tmp_path / 'a', *range(4))
    assert check('a', '--patch', '48') == (0, [])
    assert check('a/HR') == check('a/HR:a/LRbicx2') == check('a/HR:a/LRbicx2:a/LRbicx3') == (0, [])
    build_raw_lmdb(FolderStore(tmp_path / 'a' / 'HR'), tmp_path / 'a' / 'HR.lmdb')
    build_png_lmdb(FolderStore(tmp_path / 'a' / 'LRbicx3'), tmp_path / 'a' / 'LRbicx3.lmdb')
    assert check('a', '--scale', '3') == check('a/HR.lmdb:a/LRbicx3.lmdb') == (0, [])


def test_div2ks_names(tmp_path, check):
    write_pairs(tmp_path / 'D', 0, 1, scales=(2, 4), hr='DIV2K_train_HR', lr='DIV2K_train_LR_bicubic/X{}')
    for scale in (2, 4):
        for path in (tmp_path / 'D' / 'DIV2K_train_LR_bicubic' / f'X{scale}').iterdir():
            path.rename(path.with_name(f'{path.stem}x{scale}.png'))
    write_pairs(tmp_path / 'D', 2, 3, scales=(2,), hr='DIV2K_valid_HR', lr='DIV2K_valid_LR_bicubic/X{}')
    assert check('D') == (0, [])
    save(tmp_path / 'D' / 'DIV2K_train_LR_bicubic' / 'X4' / 'i1x4.png', structured(7, 12, 15))
    code, found = check('D')
    assert code == 1 and kinds(found) == {'D/DIV2K_train_LR_bicubic/X4/i1x4.png': 'kernel'}
    assert check('D', '--scale', '2') == (0, [])


def test_sets_that_this_project_makes_are_clean(tmp_path, check, prepare_data):
    for number in range(4):
        save(tmp_path / 'photos' / f'{number}.png', structured(number, 101, 99))
    options = ('--min-size', '24', '--val', '1')
    assert prepare_data('folder', 'photos', '-o', 'set', *options, cwd=tmp_path).code == 0
    assert check('set', '--patch', '48') == (0, [])
    arguments = ('set/train/HR:set/train/LRbicx2', '-o', 'cut', '--size', '48', '--step', '24')
    assert prepare_data('subimages', *arguments, cwd=tmp_path).code == 0
    assert check('cut', '--patch', '48') == (0, [])


# Each fault by itself


def test_all_faults_at_once(tmp_path, check):
    write_pairs(tmp_path, *range(12))
    hr, lr = tmp_path / 'HR', tmp_path / 'LRbicx2'
    shutil.rmtree(tmp_path / 'LRbicx3')
    (hr / 'i0.png').write_bytes((hr / 'i0.png').read_bytes()[:-30])
    (lr / 'i1.png').write_bytes(b'')
    (lr / 'i2.png').unlink()
    (hr / 'i3.png').unlink()
    save(lr / 'i4.png', matlab_resize(structured(4), 0.5)[:, :-1])
    save(hr / 'i5.png', structured(5)[..., 0])
    save(lr / 'i5.png', np.stack([matlab_resize(structured(5)[..., 0], 0.5)] * 3, -1))
    save(hr / 'i6.png', np.dstack([structured(6), np.full((48, 60), 255, np.uint8)]))
    save(hr / 'i7.png', structured(7).astype(np.uint16) * 257)
    save(lr / 'i8.png', cv2.resize(structured(8), (30, 24), interpolation=cv2.INTER_CUBIC))
    shutil.copy(hr / 'i9.png', hr / 'copy.png')
    shutil.copy(lr / 'i9.png', lr / 'copy.png')
    save(hr / 'i10.bmp', structured(100))
    save(hr / 'small.png', structured(11, 40, 44))
    save(lr / 'small.png', matlab_resize(structured(11, 40, 44), 0.5))
    code, found = check('HR:LRbicx2', '--patch', '48')
    assert code == 1
    by_path: dict[str, list[tuple[str, str]]] = {}
    for kind, path, message in found:
        by_path.setdefault(path, []).append((kind, message))
    broken = 'not an image that can be decoded (broken or truncated)'
    form = 'readers differ in what they make of it, 8-bit RGB is expected'
    assert by_path.pop('HR/i0.png') == [('unreadable', broken)]
    assert by_path.pop('LRbicx2/i1.png') == [('unreadable', broken)]
    assert by_path.pop('HR/i2.png') == [('unpaired', 'has no LR image in LRbicx2')]
    assert by_path.pop('LRbicx2/i3.png') == [('unpaired', 'has no HR image in HR')]
    assert by_path.pop('LRbicx2/i4.png') == [('size', '29x24 pixels times 2 are not the 60x48 of HR')]
    assert by_path.pop('HR/i5.png') == [('form', f'gray; {form}')]
    assert by_path.pop('HR/i6.png') == [('form', f'with alpha; {form}')]
    assert by_path.pop('HR/i7.png') == [('form', f'16 bits; {form}')]
    ((kind, message),) = by_path.pop('LRbicx2/i8.png')
    assert kind == 'kernel' and message.startswith("not MATLAB's bicubic of HR; looks like OpenCV's INTER_CUBIC, mean")
    assert by_path.pop('HR/i9.png') == [('duplicate', 'has the pixels of HR/copy.png')]
    assert by_path.pop('HR/i10.png') == [('name', 'differs from i10.bmp in the extension alone')]
    assert {kind for kind, _ in by_path.pop('LRbicx2/i10.png')} == {'kernel'}  # of i10.bmp
    assert by_path.pop('HR/small.png') == [('small', '44x40 pixels are too few for patches of 48')]
    assert by_path == {}
    assert check('HR:LRbicx2')[1] == [problem for problem in found if problem[0] != 'small']


def test_stored_forms(tmp_path, check):
    gray = structured(0)[..., 0]
    save(tmp_path / 'HR' / 'a.jpg', gray)
    save(tmp_path / 'HR' / 'b.tif', gray.astype(np.uint16))
    save(tmp_path / 'HR' / 'c.png', np.dstack([gray, gray, gray, gray]))
    save(tmp_path / 'HR' / 'd.webp', np.dstack([structured(1), gray]))
    save(tmp_path / 'HR' / 'e.png', structured(2).astype(np.uint16) * 256)
    for number, name in enumerate(('f.png', 'g.jpg', 'h.bmp', 'i.tif', 'j.webp')):
        save(tmp_path / 'HR' / name, structured(10 + number))
    code, found = check('HR')
    assert code == 1
    assert {path: message.split(';')[0] for _, path, message in found} == {
        'HR/a.jpg': 'gray',
        'HR/b.tif': 'gray, 16 bits',
        'HR/c.png': 'with alpha',
        'HR/d.webp': 'with alpha',
        'HR/e.png': '16 bits',
    }


def test_faults_in_lmdbs(tmp_path, check):
    write_pairs(tmp_path, 0, 1, 2, scales=(2,))
    save(tmp_path / 'LRbicx2' / 'i2.png', structured(5, 24, 30))
    for name, build in (('HR', build_raw_lmdb), ('LRbicx2', build_png_lmdb)):
        build(FolderStore(tmp_path / name), tmp_path / f'{name}.lmdb')
        shutil.rmtree(tmp_path / name)
    with open(tmp_path / 'LRbicx2.lmdb' / 'meta_info.txt', 'a', encoding='utf-8') as file:
        file.write('i3.png (24,30,3) 1\n')
    code, found = check('.')
    assert code == 1
    assert [problem[:2] for problem in found] == [
        ('unreadable', 'LRbicx2.lmdb/i3'),
        ('unpaired', 'LRbicx2.lmdb/i3'),
        ('kernel', 'LRbicx2.lmdb/i2'),
    ]
    (tmp_path / 'HR.lmdb' / 'data.mdb').write_bytes(b'')
    code, found = check('HR.lmdb')
    assert code == 1 and kinds(found) == {'HR.lmdb': 'unreadable'}


def test_folder_without_images(tmp_path, check):
    write_pairs(tmp_path, 0, scales=())
    (tmp_path / 'LR').mkdir()
    assert check('HR:LR') == (1, [('unreadable', 'LR', 'no images in this folder')])


def test_scale_is_told_by_name_or_by_most_of_the_sizes(tmp_path, check):
    write_pairs(tmp_path, *range(4), scales=(3,), lr='small')
    save(tmp_path / 'small' / 'i0.png', structured(0, 24, 30))
    message = '30x24 pixels times {} are not the 60x48 of HR'
    assert check('HR:small') == (1, [('size', 'small/i0.png', message.format(3))])
    code, found = check('HR:small', '--scale', '4')
    assert code == 1 and len(found) == 4 and ('size', 'small/i0.png', message.format(4)) in found


# Images that are in two sets


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ('astronaut', 'chelsea', 'coffee', 'rocket'):
        image = np.ascontiguousarray(getattr(data, name)()[..., ::-1])
        save(tmp_path / ('test' if name == 'coffee' else 'train') / f'{name}.png', image)
    return tmp_path


def test_images_of_the_test_set_are_found_in_the_training_set(photos, check):
    assert check('train', '--against', 'test') == check('train', 'test') == (0, [])
    coffee = cv2.imread(str(photos / 'test' / 'coffee.png'))
    save(photos / 'train' / 'cup.jpg', cv2.resize(coffee[50:350, 100:500], None, fx=0.7, fy=0.7)[:, ::-1])
    save(photos / 'train' / 'same.bmp', coffee)
    for arguments in (('train', '--against', 'test'), ('train', 'test')):
        code, found = check(*arguments)
        assert code == 1
        (same, near) = found
        assert same == ('duplicate', 'train/same.bmp', 'has the pixels of test/coffee.png')
        assert near[:2] == ('near-duplicate', 'train/cup.jpg')
        assert near[2].startswith('shows the same as test/coffee.png (9')
        assert ', at 0.70 times the size, mirrored; agreement ' in near[2]
    assert check('train')[1] == []  # within a set, parts of one image are in order


def test_what_is_only_compared_with_is_not_checked(photos, check):
    save(photos / 'test' / 'gray.png', structured(0)[..., 0])
    save(photos / 'test' / 'gray copy.png', structured(0)[..., 0])
    assert check('train', '--against', 'test') == (0, [])
    (photos / 'test' / 'broken.png').write_bytes(b'')
    code, found = check('train', '--against', 'test')
    assert code == 1 and kinds(found) == {'test/broken.png': 'unreadable'}


def test_forms_of_one_set_are_not_compared_with_each_other(photos, check):
    (photos / 'a').mkdir()
    (photos / 'train').rename(photos / 'a' / 'HR')
    (photos / 'test').rename(photos / 'HR')
    build_raw_lmdb(FolderStore(photos / 'a' / 'HR'), photos / 'a' / 'HR.lmdb')
    shutil.copytree(photos / 'a' / 'HR', photos / 'a' / 'HR_sub')
    for scale in (2, 3):
        shutil.copytree(photos / 'a' / 'HR', photos / 'b' / 'HR' / f'x{scale}')
    assert check('a') == check('b') == (0, [])
    assert len(check('a', 'b')[1]) == 3
    assert check('a', '--against', 'a/HR.lmdb') == (0, [])


def test_training_and_validation_parts_are_compared(photos, check):
    for name in ('train', 'test'):
        (photos / 'set' / name).mkdir(parents=True)
        (photos / name).rename(photos / 'set' / name / 'HR')
    shutil.copy(photos / 'set' / 'test' / 'HR' / 'coffee.png', photos / 'set' / 'train' / 'HR')
    assert check('set') == (1, [('duplicate', 'set/test/HR/coffee.png', 'has the pixels of set/train/HR/coffee.png')])


# Usage


def test_mistakes_are_told_in_one_line(tmp_path, prepare_data):
    (tmp_path / 'HR').mkdir()
    for arguments, reason in (
        (['gone'], 'gone: no such folder'),
        (['HR:gone'], 'gone: no such folder'),
        (['HR', '--against', 'gone'], 'gone: no such folder'),
        (['HR', '--json', 'gone/x.json'], 'gone: no such folder'),
    ):
        ended = prepare_data('check', *arguments, cwd=tmp_path)
        assert (ended.code, ended.out, ended.err) == (2, '', f'error: {reason}\n')
    for arguments in ([], ['HR', '--scale', '0'], ['HR', '--patch', 'x']):
        ended = prepare_data('check', *arguments, cwd=tmp_path)
        assert ended.code == 2 and 'usage: ' in ended.err and 'Traceback' not in ended.err
