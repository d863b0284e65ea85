import logging
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr_clsd.data.lmdb import RawLmdbStore
from basicsr_clsd.data.stores import FolderStore, open_store
from basicsr_clsd.prepare.lmdb_build import build_png_lmdb, build_raw_lmdb


@pytest.fixture
def folder(make_images, tmp_path: Path) -> Path:
    return make_images(tmp_path / 'set', count=3)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger='basicsr')
    logging.getLogger('basicsr').propagate = True
    return caplog


def test_raw_pixels_of_the_same_images_are_read(folder, log, monkeypatch):
    assert isinstance(open_store(folder, prefer_lmdb=True), FolderStore)
    build_raw_lmdb(FolderStore(folder), folder.with_name('set.lmdb'))
    store = open_store(folder, prefer_lmdb=True)
    assert isinstance(store, RawLmdbStore)
    assert 'set.lmdb is read' in log.text
    np.testing.assert_array_equal(store.read('img2'), FolderStore(folder).read('img2.png'))
    assert isinstance(open_store(folder.with_name('set.lmdb'), prefer_lmdb=True), RawLmdbStore)
    monkeypatch.chdir(folder)
    assert isinstance(open_store('.', prefer_lmdb=True), RawLmdbStore)


def change(folder: Path) -> None:
    os.utime(folder / 'img1.png', ns=(1, 1))


def overwrite_in_the_same_moment(folder: Path) -> None:
    stamp = (folder / 'img1.png').stat().st_mtime_ns
    assert cv2.imwrite(str(folder / 'img1.png'), np.zeros((48, 48, 3), np.uint8))
    os.utime(folder / 'img1.png', ns=(stamp, stamp))


def add(folder: Path) -> None:
    shutil.copy2(folder / 'img1.png', folder / 'img4.png')


def remove(folder: Path) -> None:
    (folder / 'img3.png').unlink()


def rename(folder: Path) -> None:
    (folder / 'img3.png').rename(folder / 'img5.png')


@pytest.mark.parametrize('alter', [change, overwrite_in_the_same_moment, add, remove, rename])
def test_folder_that_differs_is_read_itself(folder, log, alter):
    build_raw_lmdb(FolderStore(folder), folder.with_name('set.lmdb'))
    alter(folder)
    assert isinstance(open_store(folder, prefer_lmdb=True), FolderStore)
    assert 'set.lmdb, which was made from other images' in log.text


def test_other_lmdbs_are_let_be(folder, log):
    beside = folder.with_name('set.lmdb')
    build_png_lmdb(FolderStore(folder), beside)
    assert isinstance(open_store(folder, prefer_lmdb=True), FolderStore)
    assert log.text == ''
    (beside / 'data.mdb').write_bytes(b'no LMDB')
    assert isinstance(open_store(folder, prefer_lmdb=True), FolderStore)
    assert 'not the LMDB beside it' in log.text
