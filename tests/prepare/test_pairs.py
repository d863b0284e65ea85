"""``prepare_data.py lmdb``: LMDBs of HR and LR images under the same names, which BasicSR itself reads."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from basicsr.data.paired_image_dataset import PairedImageDataset

from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.lmdb import RawLmdbStore
from basicsr_clsd.data.stores import open_store
from basicsr_clsd.images.matlab_resize import matlab_resize


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (36, 48, 3)).astype(np.uint8)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    for folder in ('HR', 'X2', 'X3'):
        (tmp_path / folder).mkdir()
    for number in range(1, 5):
        cv2.imwrite(str(tmp_path / 'HR' / f'000{number}.png'), image(number))
        for scale in (2, 3):
            cv2.imwrite(
                str(tmp_path / f'X{scale}' / f'000{number}x{scale}.png'), matlab_resize(image(number), 1 / scale)
            )
    return tmp_path


def test_basicsr_reads_png_lmdbs_of_div2ks_folders(sets, prepare_data):
    ended = prepare_data('lmdb', 'HR:X2:X3', cwd=sets)
    assert (ended.code, ended.err) == (0, '')
    assert ended.out.splitlines() == ['Stored HR.lmdb', 'Stored X2.lmdb', 'Stored X3.lmdb']
    for scale in (2, 3):
        roots = {'dataroot_gt': str(sets / 'HR.lmdb'), 'dataroot_lq': str(sets / f'X{scale}.lmdb')}
        theirs = PairedImageDataset({**roots, 'phase': 'val', 'scale': scale, 'io_backend': {'type': 'lmdb'}})
        assert len(theirs) == 4
        for index, number in enumerate(range(1, 5)):
            sample = theirs[index]
            assert sample['gt_path'] == f'000{number}'
            for key, expected in (('gt', image(number)), ('lq', matlab_resize(image(number), 1 / scale))):
                pixels = (sample[key] * 255).round().numpy().astype(np.uint8).transpose(1, 2, 0)[..., ::-1]
                np.testing.assert_array_equal(pixels, expected)
        for environment in theirs.file_client.client._client.values():
            environment.close()  # lmdb opens a path but once in a process
    assert (sets / 'X2.lmdb' / 'meta_info.txt').read_text().splitlines()[0] == '0001.png (18,24,3) 1'


def test_raw_lmdbs_in_another_folder(sets, prepare_data):
    assert prepare_data('lmdb', '--raw', '-o', 'lmdbs/new', 'HR:X3', cwd=sets).code == 0
    stores = [open_store(sets / 'lmdbs' / 'new' / f'{name}.lmdb') for name in ('HR', 'X3')]
    assert all(isinstance(store, RawLmdbStore) for store in stores)
    assert stores[0].names() == stores[1].names() == ['0001', '0002', '0003', '0004']
    np.testing.assert_array_equal(stores[1].read('0003'), matlab_resize(image(3), 1 / 3))
    roots = {'dataroot_gt': str(stores[0].root), 'dataroot_lq': str(stores[1].root)}
    dataset = PairedDataset({**roots, 'phase': 'train', 'scale': 3, 'gt_size': 12})
    assert len(dataset) == 4 and not list(sets.glob('*.lmdb'))


def test_what_is_there_is_not_made_again(sets, prepare_data):
    assert prepare_data('lmdb', 'HR', 'X2', cwd=sets).code == 0
    before = {path: path.stat().st_mtime_ns for path in sets.rglob('*')}
    ended = prepare_data('lmdb', 'HR', 'X2', cwd=sets)
    assert ended.code == 0 and ended.out.count('is there already, made from these images') == 2
    assert {path: path.stat().st_mtime_ns for path in sets.rglob('*')} == before
    # By itself a folder keeps its names.
    assert open_store(sets / 'X2.lmdb').names() == [f'000{number}x2' for number in range(1, 5)]


def test_lmdb_of_pngs_becomes_one_of_raw_pixels(sets, prepare_data):
    assert prepare_data('lmdb', 'HR:X2', '-o', 'png', cwd=sets).code == 0
    assert prepare_data('lmdb', 'png/HR.lmdb:png/X2.lmdb', '-o', 'raw', '--raw', cwd=sets).code == 0
    for name, scale in (('HR', 1), ('X2', 2)):
        store = open_store(sets / 'raw' / f'{name}.lmdb')
        assert isinstance(store, RawLmdbStore)
        np.testing.assert_array_equal(store.read('0002'), matlab_resize(image(2), 1 / scale))


def test_mistakes_are_told_in_one_line(sets, prepare_data):
    def refused(reason: str, *arguments: str) -> None:
        ended = prepare_data('lmdb', *arguments, cwd=sets)
        assert ended.code == 2 and ended.err.startswith('error: ') and ended.err.count('\n') == 1
        assert reason in ended.err

    refused('gone: no such folder', 'HR:gone')
    (sets / 'other' / 'HR').mkdir(parents=True)
    refused('other/HR: no images in this folder', 'other/HR')
    for path in (sets / 'X2').iterdir():
        shutil.copy(path, sets / 'other' / 'HR')
    refused('all/HR.lmdb: would hold images of two folders; give them one -o each', 'HR:other/HR', '-o', 'all')
    refused('HR: no LR image for 0001x2.png and 3 more', 'other/HR:HR', '-o', 'all')
    assert not (sets / 'all').exists()
    assert prepare_data('lmdb', 'HR', '-o', 'all', cwd=sets).code == 0
    refused('all/HR.lmdb', 'other/HR', '-o', 'all')


def test_broken_image_is_named_and_no_lmdb_is_left(sets, prepare_data):
    path = sets / 'X2' / '0004x2.png'
    path.write_bytes(path.read_bytes()[:-20])
    ended: Any = prepare_data('lmdb', 'HR:X2', '--raw', cwd=sets)
    assert ended.code == 2 and 'X2/0004x2.png: not an image that can be decoded' in ended.err
    assert [path.name for path in sets.glob('*.lmdb')] == ['HR.lmdb']
