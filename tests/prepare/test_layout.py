"""Which folders a path stands for, and which images pair."""

from pathlib import Path

import pytest

from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.layout import SetPaths, given_paths, paired_names, scale_of, set_paths


def tree(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def found(path: Path | str, root: Path) -> dict[str, list[str]]:
    def short(folder: Path) -> str:
        return folder.relative_to(root).as_posix()

    return {short(paths.hr): sorted(map(short, paths.lrs)) for paths in set_paths(str(path))}


def test_a_folder_of_images_is_hr(tmp_path):
    tree(tmp_path, 'photos/trip', 'photos/.cache/HR')
    assert set_paths(str(tmp_path / 'photos')) == [SetPaths(tmp_path / 'photos')]


def test_pairs_are_given_with_a_colon(tmp_path):
    hr, x2, x3 = (tree(tmp_path, name) / name for name in ('a', 'b', 'c.lmdb'))
    assert set_paths(f'{hr}:{x2}') == [given_paths(f'{hr}:{x2}')] == [SetPaths(hr, (x2,))]
    assert given_paths(f'{hr}:{x2}:{x3}') == SetPaths(hr, (x2, x3))
    tree(tmp_path, 'with:colon')
    assert given_paths(f'{tmp_path}/with:colon') == SetPaths(tmp_path / 'with:colon')
    for text in (f'{tmp_path}/gone', f'{hr}:{tmp_path}/gone', f'{tmp_path}/gone:{x2}'):
        with pytest.raises(UserError, match=f'^{tmp_path}/gone: no such folder$'):
            set_paths(text)


def test_roots_below_datasets_lie_in_the_data_folder(tmp_path, monkeypatch):
    tree(tmp_path, 'HR', 'LR')
    monkeypatch.setenv('CLSD_DATA', str(tmp_path))
    assert given_paths('datasets/HR:datasets/LR') == SetPaths(tmp_path / 'HR', (tmp_path / 'LR',))


def test_benchmarks(tmp_path):
    tree(tmp_path, 'Set5/HR/x2', 'Set5/HR/x3', 'Set5/LRbicx2', 'Set5/LRbicx3', 'Set14/HR/x4', 'Set14/LRbicx4')
    assert found(tmp_path / 'Set5', tmp_path) == {'Set5/HR/x2': ['Set5/LRbicx2'], 'Set5/HR/x3': ['Set5/LRbicx3']}
    assert len(found(tmp_path, tmp_path)) == 3
    collections = [paths.collection for paths in set_paths(str(tmp_path))]
    assert len(set(collections)) == 2 and collections[1] == collections[2]


def test_div2k(tmp_path):
    tree(
        tmp_path,
        'DIV2K_train_HR',
        'DIV2K_train_HR.lmdb',
        'DIV2K_train_HR_sub',
        'DIV2K_train_LR_bicubic/X2',
        'DIV2K_train_LR_bicubic/X2.lmdb',
        'DIV2K_train_LR_bicubic/X2_sub',
        'DIV2K_train_LR_bicubic/X4',
        'DIV2K_valid_HR',
        'DIV2K_valid_LR_bicubic/X2',
    )
    train, valid = 'DIV2K_train_LR_bicubic', 'DIV2K_valid_LR_bicubic'
    assert found(tmp_path, tmp_path) == {
        'DIV2K_train_HR': [f'{train}/X2', f'{train}/X4'],
        'DIV2K_train_HR.lmdb': [f'{train}/X2.lmdb'],
        'DIV2K_train_HR_sub': [f'{train}/X2_sub'],
        'DIV2K_valid_HR': [f'{valid}/X2'],
    }
    assert len({paths.collection for paths in set_paths(str(tmp_path))}) == 2


def test_ones_own_photos(tmp_path):
    tree(tmp_path, *(f'{part}/{name}' for part in ('train', 'val') for name in ('HR', 'HR.lmdb', 'LRbicx2', 'LRbicx3')))
    tree(tmp_path, 'train/LRbicx2.lmdb')
    assert found(tmp_path, tmp_path) == {
        'train/HR': ['train/LRbicx2', 'train/LRbicx3'],
        'train/HR.lmdb': ['train/LRbicx2.lmdb'],
        'val/HR': ['val/LRbicx2', 'val/LRbicx3'],
        'val/HR.lmdb': [],
    }


def test_hr_beside_lr(tmp_path):
    tree(tmp_path, 'HR', 'LR', 'other')
    assert found(tmp_path, tmp_path) == {'HR': ['LR']}


@pytest.mark.parametrize(
    ('name', 'scale'),
    [('X2', 2), ('x4', 4), ('LRbicx3', 3), ('LRx2', 2), ('LR_x8', 8), ('X2_sub', 2), ('X2.lmdb', 2), ('X2_sub.lmdb', 2)]
    + [('LR', None), ('HR', None), ('fox2', None), ('x2y', None), ('X0', None), ('0001x2', None)],
)
def test_scale_of_a_folder(name, scale):
    assert scale_of(Path('a') / name) == scale


@pytest.mark.parametrize('ending', ['', 'x2', 'x3', '_x4', 'x8'])
def test_images_pair_by_their_names(ending):
    hr = ['a.png', 'b/c.jpg', 'd.e']
    lr = [f'a{ending}.bmp', f'b/c{ending}.png', f'd.e{ending}']
    assert paired_names(hr, lr) == (dict(zip(hr, lr, strict=True)), [], [])
    pairs, missing, extra = paired_names([*hr, 'only.png'], [*lr[1:], 'other.png'])
    assert pairs == dict(zip(hr[1:], lr[1:], strict=True))
    assert (missing, extra) == (['a.png', 'only.png'], ['other.png'])
    assert paired_names(hr, []) == ({}, hr, [])
