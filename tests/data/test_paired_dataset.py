"""Pairs of images: BasicSR's samples, and what is told about pairs that are none."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from helpers import messages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.paired_dataset import check_decodable
from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.lmdb_build import build_raw_lmdb


@pytest.fixture
def pairs(tmp_path, make_pairs) -> tuple[Path, Path]:
    """Four pairs at x2, HR of 40x36 pixels."""
    return make_pairs(tmp_path, count=4, height=36, width=40)


@pytest.fixture
def open_set(pairs) -> Callable[..., PairedDataset]:
    """``open_set(key=value, ...)``: a training set of the pairs, with these options changed."""

    def opened(**options: Any) -> PairedDataset:
        hr, lr = pairs
        default = {'phase': 'train', 'scale': 2, 'dataroot_gt': str(hr), 'dataroot_lq': str(lr), 'gt_size': 16}
        return PairedDataset({**default, **options})

    return opened


@pytest.fixture
def told(open_set) -> Callable[..., str]:
    """``told(key=value, ...)``: what opening the set so raises."""
    return partial(messages.told, open_set)


def samples(dataset: Any, order: list[int], seed: int = 3) -> list[dict[str, Any]]:
    random.seed(seed)
    return [dataset[index] for index in order]


def basicsr_set(hr: Path, lr: Path, **options: Any) -> PairedImageDataset:
    default = {'phase': 'train', 'scale': 2, 'gt_size': 16, 'use_hflip': True, 'use_rot': True}
    backend = {'type': 'lmdb' if hr.suffix == '.lmdb' else 'disk'}
    return PairedImageDataset(
        {**default, 'dataroot_gt': str(hr), 'dataroot_lq': str(lr), 'io_backend': backend, **options}
    )


def as_lmdb(folder: Path) -> Path:
    """An LMDB beside a folder of PNG files, by BasicSR."""
    files = sorted(path.name for path in folder.iterdir())
    root = folder.with_name(f'{folder.name}.lmdb')
    make_lmdb_from_imgs(str(folder), str(root), files, [Path(name).stem for name in files], map_size=2**22)
    return root


def stored(folders: tuple[Path, Path], storage: str) -> tuple[Path, Path]:
    """The folders, or LMDBs of them elsewhere: by BasicSR, or of raw pixels."""
    if storage == 'png':
        hr, lr = (as_lmdb(folder) for folder in folders)
        return hr, lr
    targets = [folder.parent / 'raw' / f'{folder.name}.lmdb' for folder in folders]
    if storage == 'raw':
        for folder, target in zip(folders, targets, strict=True):
            build_raw_lmdb(FolderStore(folder), target)
    hr, lr = targets if storage == 'raw' else folders
    return hr, lr


STATISTICS = {'mean': [0.4488, 0.4371, 0.4040], 'std': [0.5, 0.25, 1.0]}


@pytest.mark.parametrize('storage', ['folder', 'png', 'raw'])
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'use_hflip': False},
        {'use_rot': False},
        {'use_hflip': False, 'use_rot': False, 'gt_size': 36},
        {'color': 'y'},
        STATISTICS,
        {'color': 'y', 'mean': [0.5], 'std': [0.25]},
        {'phase': 'val'},
        {'phase': 'test', 'color': 'y'},
        {'phase': 'val', **STATISTICS},
    ],
    ids=str,
)
def test_samples_are_basicsrs_bit_for_bit(pairs, open_set, storage, options):
    hr, lr = stored(pairs, storage)
    ours = open_set(dataroot_gt=str(hr), dataroot_lq=str(lr), **options)
    theirs = basicsr_set(*(pairs if storage == 'raw' else (hr, lr)), **options)
    stems = [Path(path['gt_path']).stem for path in theirs.paths]
    their_samples = samples(theirs, [stems.index(ours.name(index)) for index in range(4)] * 3)
    if storage == 'png':  # lmdb opens a path but once in a process
        for environment in theirs.file_client.client._client.values():
            environment.close()
    for our, their in zip(samples(ours, [0, 1, 2, 3] * 3), their_samples, strict=True):
        for key in ('lq', 'gt'):
            assert our[key].dtype == torch.float32
            assert our[key].shape == their[key].shape
            assert torch.equal(our[key], their[key])
        assert Path(our['gt_path']).stem == Path(their['gt_path']).stem
        assert Path(our['lq_path']).stem == Path(their['lq_path']).stem


@pytest.mark.parametrize('options', [{}, {'color': 'y'}, {'phase': 'val'}])
def test_images_kept_in_memory_stay_as_they_were(open_set, options):
    """Flips work in place; they must not reach what is kept."""
    kept, read = open_set(cache_images=True, **options), open_set(**options)
    order = [0, 1, 2, 3] * 8
    for one, other in zip(samples(kept, order), samples(read, order), strict=True):
        assert torch.equal(one['gt'], other['gt'])
        assert torch.equal(one['lq'], other['lq'])


def test_sample_does_not_share_memory_with_what_is_kept(open_set):
    kept = open_set(cache_images=True, phase='val')
    before = kept[0]['gt'].clone()
    kept[0]['gt'].zero_()
    assert torch.equal(kept[0]['gt'], before)


@pytest.mark.parametrize('storage', ['png', 'raw'])
def test_folder_and_lmdb_give_one_order_and_the_same_samples(pairs, open_set, storage):
    hr, lr = stored(pairs, storage)
    folder, lmdb = open_set(), open_set(dataroot_gt=str(hr), dataroot_lq=str(lr))
    assert [folder.name(index) for index in range(4)] == [lmdb.name(index) for index in range(4)]
    for one, other in zip(samples(folder, [2, 0, 3]), samples(lmdb, [2, 0, 3]), strict=True):
        assert torch.equal(one['gt'], other['gt']) and torch.equal(one['lq'], other['lq'])


@pytest.mark.parametrize('storage', ['folder', 'png', 'raw', 'memory', 'mixed'])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('options', [{}, {'use_hflip': False}, {'use_rot': False}, {'gt_size': 36}], ids=str)
def test_batch_is_the_samples_in_8_bits(pairs, open_set, storage, channels_last, options):
    hr, lr = stored(pairs, 'raw' if storage == 'mixed' else storage)
    lr = pairs[1] if storage == 'mixed' else lr
    dataset = open_set(dataroot_gt=str(hr), dataroot_lq=str(lr), cache_images=storage == 'memory', **options)
    order = [3, 0, 0, 2, 1] * 4
    random.seed(3)
    batch = dataset.batch(order, [random] * len(order), channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    expected = samples(open_set(**options), order)
    for key in ('lq', 'gt'):
        assert batch[key].dtype == torch.uint8 and batch[key].is_contiguous(memory_format=layout)
        assert torch.equal(batch[key].float() / 255, torch.stack([sample[key] for sample in expected]))
    stems = [Path(path).stem for path in batch['gt_path']]
    assert stems == [Path(path).stem for path in batch['lq_path']] == [f'img{index + 1}' for index in order]
    # A batch is memory of its own: writing to it reaches neither what is kept nor the map.
    batch['gt'].zero_()
    random.seed(3)
    again = dataset.batch(order, [random] * len(order), channels_last)
    assert torch.equal(again['gt'].float() / 255, torch.stack([sample['gt'] for sample in expected]))


@pytest.mark.parametrize('options', [{'color': 'y'}, STATISTICS, {'std': [0.25]}], ids=str)
@pytest.mark.parametrize('storage', ['folder', 'raw'])
def test_batch_of_values_that_8_bits_do_not_hold_is_the_samples(pairs, open_set, options, storage):
    hr, lr = stored(pairs, storage)
    dataset, order = open_set(dataroot_gt=str(hr), dataroot_lq=str(lr), **options), [0, 1, 3, 2]
    random.seed(3)
    batch = dataset.batch(order, [random] * len(order))
    for key in ('lq', 'gt'):
        assert batch[key].dtype == torch.float32
        assert torch.equal(batch[key], torch.stack([sample[key] for sample in samples(dataset, order)]))


def test_image_that_has_changed_since_the_set_was_opened_is_told(pairs, open_set):
    hr, lr = pairs
    dataset = open_set()
    cv2.imwrite(str(hr / 'img1.png'), np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(UserError) as caught:
        dataset.batch([0], [random])
    assert str(caught.value) == f'{hr}/img1.png: 48x48 pixels are not 2 times the 20x18 of {lr}/img1.png'
    for path, side in ((hr, 12), (lr, 6)):
        cv2.imwrite(str(path / 'img1.png'), np.zeros((side, side, 3), np.uint8))
    with pytest.raises(UserError, match='12x12 pixels are too few for gt_size 16'):
        dataset.batch([0], [random])


def test_order_is_that_of_the_names_whatever_that_of_the_folder(tmp_path, pairs, open_set):
    names = ['a.png', 'b.png', 'img10.png', 'img9.png']
    for folder in pairs:
        files = sorted(folder.iterdir())
        for name, path in zip(reversed(names), files, strict=True):
            path.rename(folder / name)
    dataset = open_set()
    assert [pair[0] for pair in dataset.pairs] == names
    assert dataset[1]['gt_path'] == str(pairs[0] / 'b.png')
    assert dataset[1]['lq_path'] == str(pairs[1] / 'b.png')


def test_patches_of_lr_and_hr_are_of_one_place(tmp_path):
    """HR holds its own coordinates, LR those of every second pixel."""
    hr = np.zeros((64, 64, 3), np.uint8)
    hr[..., 0], hr[..., 1] = np.arange(64)[:, None], np.arange(64)[None]
    for name, image in (('HR', hr), ('LR', hr[::2, ::2])):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), image)
    options = {'phase': 'train', 'scale': 2, 'dataroot_gt': str(tmp_path / 'HR'), 'dataroot_lq': str(tmp_path / 'LR')}
    seen = set()
    for sample in samples(PairedDataset({**options, 'gt_size': 8}), [0] * 64):
        gt, lq = ((sample[key] * 255).round() for key in ('gt', 'lq'))
        assert gt.shape == (3, 8, 8) and lq.shape == (3, 4, 4)
        # An LR pixel stands for two by two of HR, whose mean lies half a pixel further.
        blocks = torch.nn.functional.avg_pool2d(gt[1:], 2) - 0.5
        assert torch.equal(blocks.round(), lq[1:])
        column, row = gt[1], gt[2]
        seen.add((bool(row[0, 0] != row[0, 1]), bool(row[-1, -1] > row[0, 0]), bool(column[-1, -1] > column[0, 0])))
    assert len(seen) == 8  # flips and transposes, all of them


def test_validation_crops_hr_to_lr_and_is_not_random(pairs, open_set):
    hr, lr = pairs
    image = cv2.imread(str(hr / 'img1.png'))
    assert image is not None
    cv2.imwrite(str(hr / 'img1.png'), cv2.copyMakeBorder(image, 0, 1, 0, 1, cv2.BORDER_REPLICATE))
    dataset = open_set(phase='val', gt_size=None)
    assert dataset[0]['gt'].shape == (3, 36, 40)
    for index in range(2):
        expected = cv2.imread(str(hr / f'img{index + 1}.png'))
        assert expected is not None
        shown = (dataset[index]['gt'] * 255).round().numpy().transpose(1, 2, 0)[..., ::-1]
        np.testing.assert_array_equal(shown, expected[:36, :40])


# Names


def test_partners_are_found_by_the_template_whatever_their_extension(pairs, open_set):
    hr, lr = pairs
    for path in list(lr.iterdir()):
        image = cv2.imread(str(path))
        assert image is not None
        cv2.imwrite(str(lr / f'{path.stem}x2.bmp'), image)
        path.unlink()
    dataset = open_set(filename_tmpl='{}x2')
    assert dataset.pairs == [(f'img{number}.png', f'img{number}x2.bmp') for number in range(1, 5)]


def test_partners_in_sub_folders(pairs, open_set):
    for folder, name in zip(pairs, ('img1.png', 'img1x2.png'), strict=True):
        (folder / 'sub').mkdir()
        for path in list(folder.glob('*.png')):
            path.rename(folder / 'sub' / (path.name if name == 'img1.png' else f'{path.stem}x2.png'))
    dataset = open_set(filename_tmpl='{}x2')
    assert dataset.pairs[0] == ('sub/img1.png', 'sub/img1x2.png')
    assert dataset.name(0) == 'sub/img1'


def test_template_that_would_fit_is_suggested(pairs, told):
    hr, lr = pairs
    for path in list(lr.iterdir()):
        path.rename(lr / f'{path.stem}x2.png')
    expected = f"{lr}: no LR image for img1.png and 3 more of {hr}; filename_tmpl: '{{}}x2' would fit"
    assert told() == told(filename_tmpl='{}x3') == expected


@pytest.mark.parametrize('template', ['{', '{}x{}', '{name}', '{0.nothing}', '{:d}'])
def test_template_that_is_none_is_told(told, template):
    assert told(filename_tmpl=template) == f"filename_tmpl: '{template}' is no template like '{{}}x2'"


def test_missing_partners_are_named(pairs, told):
    hr, lr = pairs
    (lr / 'img2.png').unlink()
    assert told() == f'{lr}: no LR image for img2.png of {hr}'
    (lr / 'img4.png').unlink()
    assert told() == f'{lr}: no LR image for img2.png and 1 more of {hr}'


def test_lr_images_without_hr_are_named(pairs, told, open_set):
    hr, lr = pairs
    shutil.copy(lr / 'img1.png', lr / 'other.png')
    assert told() == f'{hr}: no HR image for other.png of {lr}'
    # Whoever chooses images leaves out others.
    assert len(open_set(names=['img1', 'img2'])) == 2


def test_other_files_are_left_alone(pairs, open_set):
    for folder in pairs:
        for name in ('Thumbs.db', '.DS_Store', 'readme.txt', '._img1.png'):
            (folder / name).write_bytes(b'no image')
    assert len(open_set()) == 4


def test_names_choose_images(pairs, open_set, told):
    hr, lr = pairs
    dataset = open_set(names=['img3', 'img1'])
    assert [dataset.name(index) for index in range(len(dataset))] == ['img1', 'img3']
    assert told(names=['img1', 'img7']) == f"{hr}: img7, asked for by 'names', not found"


@pytest.mark.parametrize('lmdb', [False, True])
def test_meta_info_file_chooses_images(pairs, open_set, told, tmp_path, lmdb):
    """As BasicSR writes it; its LMDBs are used with the same files, though their keys have no extension."""
    hr, lr = (as_lmdb(folder) for folder in pairs) if lmdb else pairs
    roots = {'dataroot_gt': str(hr), 'dataroot_lq': str(lr)}
    meta = tmp_path / 'meta.txt'
    meta.write_text('img4.png (36,40,3)\nimg2.png (36,40,3)\n\n', encoding='utf-8')
    dataset = open_set(meta_info_file=str(meta), **roots)
    assert [dataset.name(index) for index in range(len(dataset))] == ['img2', 'img4']
    both = open_set(meta_info_file=str(meta), names=['img4'], **roots)
    assert [both.name(index) for index in range(len(both))] == ['img4']
    meta.write_text('img9.png (36,40,3)\nimg2.png (36,40,3)\n', encoding='utf-8')
    missing = 'img9' if lmdb else 'img9.png'
    assert told(meta_info_file=str(meta), **roots) == f'{hr}: {missing}, named in {meta}, not found'
    meta.write_text('\n', encoding='utf-8')
    assert told(meta_info_file=str(meta), **roots) == f'{meta}: names no images'
    meta.write_bytes(b'\xff\xfe')
    assert told(meta_info_file=str(meta), **roots) == f'{meta}: cannot be read: not a text file'
    meta.unlink()
    assert told(meta_info_file=str(meta), **roots) == f'{meta}: cannot be read: No such file or directory'


@given(
    stems=st.lists(st.sampled_from(['img1', 'img2', 'img3', 'img4']), min_size=1, unique=True),
    byte_order_mark=st.booleans(),
    end=st.sampled_from(['\n', '\r\n']),
    size=st.sampled_from(['', ' (36,40,3)']),
    last_line_ends=st.booleans(),
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_meta_info_file_of_any_editor(pairs, open_set, tmp_path, stems, byte_order_mark, end, size, last_line_ends):
    text = end.join(f'{name}.png{size}' for name in stems) + end * last_line_ends
    meta = tmp_path / 'meta.txt'
    meta.write_bytes(text.encode('utf-8-sig' if byte_order_mark else 'utf-8'))
    dataset = open_set(meta_info_file=str(meta))
    assert [dataset.name(index) for index in range(len(dataset))] == sorted(stems)


def test_lists_that_basicsr_does_not_come_with(pairs, open_set, told, tmp_path, monkeypatch, caplog):
    """Its options name them by their folder in its repository."""
    monkeypatch.chdir(tmp_path)
    folder = 'basicsr/data/meta_info'
    with caplog.at_level('WARNING', 'basicsr'):
        assert len(open_set(meta_info_file=f'{folder}/meta_info_DIV2K800sub_GT.txt')) == 4
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f'meta_info_file: {folder}/meta_info_DIV2K800sub_GT.txt: ')
    assert '32,592' in line and line.endswith('all 4 images are used')
    other = f'{folder}/meta_info_REDS_GT.txt'
    assert told(meta_info_file=other).startswith(f"{other}: no such file: BasicSR's package lacks it; copy it")
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / 'meta_info_DIV2K800sub_GT.txt').write_text('img2.png (36,40,3)\n', encoding='utf-8')
    assert len(open_set(meta_info_file=f'{folder}/meta_info_DIV2K800sub_GT.txt')) == 1


def test_lr_without_hr_is_sent_to_infer_in_a_test(pairs, open_set, told):
    hr, lr = pairs
    (hr / 'img2.png').unlink()
    fault = f'{hr}: no HR image for img2.png of {lr}'
    assert told() == fault
    assert told(phase='test') == f'{fault}; infer.py upscales images that have no HR'


def test_hr_images_that_differ_in_the_extension_alone_are_refused(pairs, told):
    hr, _ = pairs
    shutil.copy(hr / 'img1.png', hr / 'img1.jpg')
    assert told() == f'{hr}: img1.jpg and img1.png differ only in the extension; rename one'


def test_folders_that_are_not_there_or_hold_no_images_are_named(pairs, told, tmp_path):
    hr, lr = pairs
    (tmp_path / 'empty').mkdir()
    for key in ('dataroot_gt', 'dataroot_lq'):
        assert told(**{key: str(tmp_path / 'gone')}) == f'{tmp_path}/gone: no such folder'
        assert told(**{key: str(tmp_path / 'empty')}) == f'{tmp_path}/empty: no images in this folder'
        assert told(**{key: str(hr / 'img1.png')}) == f'{hr}/img1.png: no such folder'


def test_roots_below_datasets_lie_in_the_data_folder(pairs, open_set, monkeypatch, tmp_path):
    monkeypatch.setenv('CLSD_DATA', str(tmp_path))
    assert open_set(dataroot_gt='datasets/HR', dataroot_lq='datasets/LR').gt.root == tmp_path / 'HR'


# Sizes


def test_pairs_whose_sizes_do_not_fit_are_named(pairs, told):
    hr, lr = pairs
    cv2.imwrite(str(lr / 'img3.png'), np.zeros((18, 19, 3), np.uint8))
    expected = f'{hr}/img3.png: 40x36 pixels are not 2 times the 19x18 of {lr}/img3.png'
    assert told() == expected
    # For measuring, HR may be the larger one, but not the smaller one.
    cv2.imwrite(str(lr / 'img3.png'), np.zeros((19, 20, 3), np.uint8))
    assert told(phase='val') == f'{hr}/img3.png: 40x36 pixels are not 2 times the 20x19 of {lr}/img3.png'
    cv2.imwrite(str(lr / 'img3.png'), np.zeros((18, 21, 3), np.uint8))
    assert told(phase='val') == f'{hr}/img3.png: 40x36 pixels are not 2 times the 21x18 of {lr}/img3.png'


def test_scale_that_is_not_that_of_the_images_is_told(pairs, told):
    hr, lr = pairs
    assert told(scale=3, gt_size=15) == f'{hr}/img1.png: 40x36 pixels are not 3 times the 20x18 of {lr}/img1.png'


def test_image_smaller_than_the_patch_is_named(pairs, told, open_set):
    hr, _ = pairs
    assert told(gt_size=38) == (
        f'{hr}/img1.png: 40x36 pixels are too few for gt_size 38; leave the image out or lower gt_size'
    )
    assert open_set(gt_size=36)[0]['gt'].shape == (3, 36, 36)


def test_size_that_the_header_does_not_tell_is_told_when_reading(pairs, open_set, tmp_path):
    """``meta_info.txt`` of an LMDB may be wrong."""
    hr, lr = (as_lmdb(path) for path in pairs)
    for root, true, false in ((hr, '(36,40,3)', '(54,60,3)'), (lr, '(18,20,3)', '(18,20,3)')):
        meta = root / 'meta_info.txt'
        meta.write_text(meta.read_text(encoding='utf-8').replace(true, false), encoding='utf-8')
    dataset = open_set(dataroot_gt=str(hr), dataroot_lq=str(lr), scale=3, gt_size=12)
    with pytest.raises(UserError) as caught:
        dataset[0]
    assert str(caught.value) == f'{hr}/img1: 40x36 pixels are not 3 times the 20x18 of {lr}/img1'


# Broken images


@pytest.mark.parametrize('which', [0, 1])
def test_broken_image_is_named_when_read(pairs, open_set, which):
    path = pairs[which] / 'img3.png'
    path.write_bytes(path.read_bytes()[:-20])
    dataset = open_set()  # the header is whole
    dataset[0]
    for read in (lambda: dataset[2], lambda: check_decodable(dataset), lambda: open_set(cache_images=True)):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value) == f'{path}: not an image that can be decoded (broken or truncated)'


def test_image_without_a_header_is_named_at_once(pairs, told):
    path = pairs[0] / 'img2.png'
    path.write_text('no image', encoding='utf-8')
    assert told() == f'{path}: not an image that can be decoded (broken or truncated)'


def test_check_decodable_passes_good_sets(open_set):
    check_decodable(open_set())
