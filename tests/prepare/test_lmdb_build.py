"""LMDBs from folders: what is in them, what is done twice, and what a kill or a full disk leaves behind."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from helpers.messages import told

from basicsr_clsd import cli
from basicsr_clsd.data import lmdb as lmdb_store
from basicsr_clsd.data.stores import FolderStore, open_store
from basicsr_clsd.prepare import lmdb_build
from basicsr_clsd.prepare.lmdb_build import build_png_lmdb, build_raw_lmdb

BUILDS = pytest.mark.parametrize('build', [build_raw_lmdb, build_png_lmdb])
SIZES = [(1, 1), (64, 5), (65, 7), (63, 200), (129, 40)]  # around the height of a band
NAMES = ['0001x2.png', 'a.b (1).png', 'b/deep/c.png', 'größe.png', 'z' * 240 + '.png']


@pytest.fixture
def folder(tmp_path) -> FolderStore:
    """Five images of odd sizes and names."""
    rng, root = np.random.default_rng(0), tmp_path / 'images'
    for name, size in zip(NAMES, SIZES, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, rng.integers(0, 256, (*size, 3)))
    return FolderStore(root)


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / 'made' / 'images.lmdb'


def write(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode('.png', image.astype(np.uint8))[1].tobytes())


def assert_holds(target: Path, source: FolderStore, names: list[str]) -> None:
    """The LMDB has these images of the folder, to the pixel, and no others."""
    store = open_store(target)
    assert store.names() == [name.removesuffix('.png') for name in names]
    for name, key in zip(names, store.names(), strict=True):
        assert store.size(key) == source.size(name)
        np.testing.assert_array_equal(store.read(key), source.read(name))


def hidden(target: Path) -> Path:
    return target.with_name(f'.{target.name}.tmp')


def in_child(work: Callable[[], object]) -> int:
    """Do something in a forked process; return how that ended, as ``subprocess`` does."""
    child = os.fork()
    if not child:
        code = 99
        try:
            work()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# What is in them


@BUILDS
def test_lmdb_holds_the_images_of_the_folder_under_names_without_extension(folder, target, build):
    assert build(folder, target) is True
    assert_holds(target, folder, folder.names())
    assert {path.name for path in target.parent.iterdir()} == {'images.lmdb'}


@BUILDS
def test_some_images_alone_in_any_order(folder, target, build):
    assert build(folder, target, [NAMES[3], NAMES[0], NAMES[3]])
    assert_holds(target, folder, [NAMES[0], NAMES[3]])


@BUILDS
def test_lmdb_of_an_lmdb(folder, target, tmp_path, build):
    build(folder, target)
    for again in (build_raw_lmdb, build_png_lmdb):
        copy = tmp_path / f'{again.__name__}.lmdb'
        assert again(open_store(target), copy)
        assert_holds(copy, folder, folder.names())
        assert not again(open_store(target), copy)


@BUILDS
def test_progress_is_shown_the_images_that_are_stored(folder, target, build):
    shown = []
    build(folder, target, None, lambda names: (shown.append(name) or name for name in names))
    assert shown == folder.names()


@BUILDS
def test_map_grows_by_itself(folder, target, build, monkeypatch):
    monkeypatch.setattr(lmdb_build, 'MAP_SIZE', 2**14)
    monkeypatch.setattr(lmdb_build, 'COMMIT_BYTES', 1)
    build(folder, target)
    assert (target / 'data.mdb').stat().st_size > 2**16
    assert_holds(target, folder, folder.names())


def test_patches_are_parts_of_the_image(folder, target, tmp_path):
    build_raw_lmdb(folder, target)
    build_png_lmdb(folder, tmp_path / 'png.lmdb')
    rng = np.random.default_rng(1)
    for store in (folder, open_store(target), open_store(tmp_path / 'png.lmdb')):
        for name in store.names():
            image = store.read(name)
            for _ in range(40):
                top, left = (rng.integers(side) for side in image.shape[:2])
                height, width = rng.integers(image.shape[0] - top) + 1, rng.integers(image.shape[1] - left) + 1
                patch = store.patch(name, top, left, height, width)
                assert patch.dtype == np.uint8 and patch.flags.c_contiguous and patch.flags.writeable
                np.testing.assert_array_equal(patch, image[top : top + height, left : left + width])
                patch[:] = 0  # it is a copy: neither a cache nor the memory map is written to
            np.testing.assert_array_equal(store.read(name), image)
            for beyond in ((-1, 0, 1, 1), (0, 0, *image.shape[:2][::-1]), (0, 0, 0, 1), (image.shape[0], 0, 1, 1)):
                if beyond[2:] != image.shape[:2]:
                    text = told(store.patch, name, *beyond)
                    assert name in text and 'have no part of' in text


def test_basicsr_reads_the_png_lmdb_as_its_own(tmp_path, make_pairs):
    hr, lr = make_pairs(tmp_path, count=4, height=36, width=40)
    samples = []
    for made_by in ('ours', 'theirs'):
        roots = [tmp_path / made_by / f'{path.name}.lmdb' for path in (hr, lr)]
        for source, root in zip((hr, lr), roots, strict=True):
            files = FolderStore(source).names()
            if made_by == 'ours':
                build_png_lmdb(FolderStore(source), root)
            else:
                root.parent.mkdir(exist_ok=True)
                make_lmdb_from_imgs(str(source), str(root), files, [name[:-4] for name in files], map_size=2**22)
        options = {'phase': 'val', 'scale': 2, 'io_backend': {'type': 'lmdb'}}
        dataset = PairedImageDataset({**options, 'dataroot_gt': str(roots[0]), 'dataroot_lq': str(roots[1])})
        samples.append([dataset[index] for index in range(4)])
    for our, their in zip(*samples, strict=True):
        assert our['gt_path'] == their['gt_path']
        np.testing.assert_array_equal(our['gt'], their['gt'])
        np.testing.assert_array_equal(our['lq'], their['lq'])
    meta = [(tmp_path / made_by / 'HR.lmdb' / 'meta_info.txt').read_text() for made_by in ('ours', 'theirs')]
    assert meta[0] == meta[1]


def test_names_that_basicsr_would_not_find_are_told(folder, target, caplog):
    build_raw_lmdb(folder, target)
    assert not caplog.records
    build_png_lmdb(folder, target.with_name('png.lmdb'))
    (record,) = caplog.records
    expected = 'BasicSR itself will not find a.b (1) and 1 more: it takes ASCII names and cuts them at a dot'
    assert record.getMessage().endswith(expected)


def test_patch_reads_little_more_than_its_rows(tmp_path):
    """Pages of the file in memory, counted by the kernel: py-lmdb would read a value as a whole."""
    folder, target = tmp_path / 'HR', tmp_path / 'HR.lmdb'
    folder.mkdir()
    write(folder / 'a.png', np.random.default_rng(0).integers(0, 256, (2048, 1024, 3)))
    build_raw_lmdb(FolderStore(folder), target)
    store = open_store(target)

    def resident() -> float:
        import ctypes  # noqa: PLC0415
        import mmap  # noqa: PLC0415

        with (target / 'data.mdb').open('r+b') as file, mmap.mmap(file.fileno(), 0) as content:
            pages = (ctypes.c_ubyte * (len(content) // mmap.PAGESIZE))()
            start = ctypes.c_char.from_buffer(content)
            ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(content)), pages)
            del start
            return sum(page & 1 for page in pages) / len(pages)

    lmdb_store.close_all()
    with (target / 'data.mdb').open('rb') as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident() > 0.05:
        pytest.skip('this file system keeps files in memory')
    store.patch('a', 1000, 500, 96, 96)
    # 96 rows lie in two or three bands of 64, of 32 in all.
    assert 2 / 32 <= resident() < 0.15


# Twice


@BUILDS
def test_whole_lmdb_of_the_same_images_is_not_made_again(folder, target, build):
    build(folder, target)
    before = {path: path.stat().st_mtime_ns for path in (target, *target.iterdir())}
    assert build(folder, target, folder.names()[::-1]) is False
    assert {path: path.stat().st_mtime_ns for path in (target, *target.iterdir())} == before


@BUILDS
def test_lmdb_of_other_images_is_left_as_it_is_and_told(folder, target, build):
    build(folder, target, NAMES[:3])
    instead = 'remove it, or choose another name'

    def told_and_left(*names: str) -> str:
        before = (target / 'data.mdb').read_bytes()
        text = told(build, folder, target, names)
        assert (target / 'data.mdb').read_bytes() == before and not hidden(target).exists()
        return text

    assert told_and_left(*NAMES[:2]) == f'{target}: was made with the image b/deep/c; {instead}'
    assert told_and_left(*NAMES[:4]) == f'{target}: was made without the image größe; {instead}'
    os.utime(folder.root / NAMES[0], ns=(0, 0))
    assert told_and_left(*NAMES[:3]) == f'{target}: was made before {NAMES[0]} was changed; {instead}'


def test_something_else_in_its_place_is_left_as_it_is_and_told(folder, target):
    build_png_lmdb(folder, target)
    assert 'is there already and holds PNG images' in told(build_raw_lmdb, folder, target)
    shutil.rmtree(target)
    make_lmdb_from_imgs(str(folder.root), str(target), [NAMES[0]], ['a'], map_size=2**20)
    text = f'{target}: is there already and was not made by this project; remove it, or choose another name'
    assert told(build_png_lmdb, folder, target) == text
    lmdb_store.close_all()
    shutil.rmtree(target)
    target.mkdir()
    assert told(build_raw_lmdb, folder, target).startswith(f'{target}: not a readable LMDB: ')
    target.rmdir()
    target.write_text('mine', encoding='utf-8')
    assert told(build_raw_lmdb, folder, target).startswith(f'{target}: not a readable LMDB: ')
    assert target.read_text(encoding='utf-8') == 'mine'


def test_lmdb_that_was_cut_off_is_not_taken_for_whole(folder, target):
    build_raw_lmdb(folder, target)
    content = (target / 'data.mdb').read_bytes()
    (target / 'data.mdb').write_bytes(content[:-4096])
    assert 'data.mdb has less than its' in told(build_raw_lmdb, folder, target)


@BUILDS
def test_mistakes_are_told_before_anything_is_made(folder, target, tmp_path, build):
    (tmp_path / 'empty').mkdir()
    assert told(build, folder, tmp_path / 'images') == f"{tmp_path / 'images'}: the name of an LMDB ends in '.lmdb'"
    empty = FolderStore(tmp_path / 'empty')
    assert told(build, empty, target) == f'{empty.root}: no images to make an LMDB of'
    assert told(build, folder, target, ['gone.png']) == f'{folder.root}: gone.png is not there'
    blocked = tmp_path / 'images' / NAMES[0] / 'x.lmdb'
    assert told(build, folder, blocked).startswith(f'{blocked.parent}: cannot be written')
    shutil.copy(folder.root / NAMES[0], folder.root / '0001x2.bmp')
    expected = f'{folder.root}: 0001x2.bmp and 0001x2.png differ only in the extension; rename one'
    assert told(build, folder, target) == expected
    (folder.root / '0001x2.bmp').unlink()
    for name in (f'{"x/" * 250}a.png', 'line\nbreak.png', os.fsdecode(b'\xff.png')):
        (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder.root / NAMES[0], folder.root / name)
        assert 'cannot be stored in an LMDB under this name; rename it' in told(build, folder, target)
        (folder.root / name).unlink()
    assert not target.parent.exists()


# Interrupted


@BUILDS
@pytest.mark.parametrize('stored', range(6))
def test_killed_after_any_image_it_goes_on_from_there(folder, target, build, stored, monkeypatch):
    """Every image is committed by itself here; the last kill comes before the renaming."""
    monkeypatch.setattr(lmdb_build, 'COMMIT_BYTES', 1)
    put, calls = lmdb_build._put, []

    def deadly(*args: Any) -> None:
        put(*args)
        calls.append(args)
        if len(calls) == stored + 1:  # the first one stores what kind of LMDB it is
            die()

    def work() -> None:
        lmdb_build._put = deadly
        build(folder, target)

    assert in_child(work) == -signal.SIGKILL
    assert not target.exists()
    assert hidden(target).is_dir() and not hidden(target).name.endswith('.lmdb')
    shown = []
    assert build(folder, target, None, lambda names: (shown.append(name) or name for name in names))
    assert shown == folder.names()[stored:]
    assert_holds(target, folder, folder.names())
    assert not hidden(target).exists()
    assert build(folder, target) is False


@BUILDS
@pytest.mark.parametrize('moment', ['read', 'put', 'rename', 'renamed'])
def test_killed_at_a_moment_it_is_not_there_or_whole(folder, target, build, moment):
    """Images are committed together here: in the midst of a transaction, and before and after the renaming."""

    def work() -> None:
        if moment == 'read':
            build(folder, target, None, lambda names: (name if name != names[-1] else die() for name in names))
        original = {'put': lmdb.Environment.set_mapsize, 'rename': os.rename, 'renamed': os.rename}[moment]

        def rename(source: Path, to: Path) -> None:
            if moment == 'renamed':
                original(source, to)
            die()

        if moment == 'put':
            lmdb_build.MAP_SIZE = 2**15  # it is full in the midst of a transaction
            lmdb_build._put.__globals__['lmdb'] = Dying()
        else:
            os.rename = rename
        build(folder, target)

    class Dying:
        """The module lmdb, but its error of a full map ends the process."""

        def __getattr__(self, name: str) -> Any:
            return die() if name == 'MapFullError' else getattr(lmdb, name)

    assert in_child(work) == -signal.SIGKILL
    assert target.exists() == (moment == 'renamed')
    assert build(folder, target) is (moment != 'renamed')
    assert_holds(target, folder, folder.names())


def test_what_was_begun_of_other_images_is_begun_anew(folder, target):
    def killed() -> None:
        lmdb_build.COMMIT_BYTES = 1
        build_raw_lmdb(folder, target, NAMES[:3], lambda names: (n if n != NAMES[2] else die() for n in names))

    assert in_child(killed) == -signal.SIGKILL
    for change in ('other names', 'other file', 'other kind', 'cut off', 'garbage', 'no marker'):
        begun = hidden(target).with_name('begun')
        shutil.copytree(hidden(target), begun)
        build, names = build_raw_lmdb, NAMES[:3]
        data = hidden(target) / 'data.mdb'
        if change == 'other names':
            names = NAMES[1:]
        elif change == 'other file':
            os.utime(folder.root / NAMES[0], ns=(1, 1))
        elif change == 'other kind':
            build = build_png_lmdb
        elif change == 'cut off':
            data.write_bytes(data.read_bytes()[:-4096])
        elif change == 'garbage':
            data.write_bytes(b'garbage' * 5000)
        else:
            with (
                lmdb.open(str(hidden(target)), lock=False) as environment,
                environment.begin(write=True) as transaction,
            ):
                transaction.put(lmdb_store.MARKER, b'{}')
        shown = []
        assert build(folder, target, names, lambda names, shown=shown: (shown.append(n) or n for n in names))
        assert len(shown) == len(names), change
        assert_holds(target, folder, sorted(names))
        shutil.rmtree(target)
        begun.rename(hidden(target))


@BUILDS
def test_full_disk_is_told_in_one_line_and_gone_on_from(folder, target, build, capfd):
    for name in NAMES:
        write(folder.root / name, np.random.default_rng(1).integers(0, 256, (200, 200, 3)))

    def work() -> None:
        lmdb_build.COMMIT_BYTES = 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        cli.run(lambda console: build(folder, target))

    assert in_child(work) == 1
    error = capfd.readouterr().err
    assert error.startswith(f'error: {target}: cannot be written: ') and len(error.splitlines()) == 1
    assert 'is the disk full?' in error and str(hidden(target)) in error
    assert not target.exists()
    shown = []
    assert build(folder, target, None, lambda names: (shown.append(name) or name for name in names))
    assert 0 < len(shown) < len(NAMES)
    assert_holds(target, folder, folder.names())


def test_disk_that_is_too_small_is_told_before_it_is_filled(folder, target, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(OSError, match='the disk has 0') as caught:
        build_raw_lmdb(folder, target)
    assert len(str(caught.value).splitlines()) == 1 and not target.exists()


def test_undecodable_image_is_told_and_the_rest_is_not_lost(folder, target, monkeypatch):
    monkeypatch.setattr(lmdb_build, 'COMMIT_BYTES', 1)
    path = folder.root / NAMES[4]
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert told(build_raw_lmdb, folder, target) == f'{path}: not an image that can be decoded (broken or truncated)'
    assert not target.exists()
    path.write_bytes(content)
    shown = []
    assert build_raw_lmdb(folder, target, None, lambda names: (shown.append(name) or name for name in names))
    assert shown == NAMES[4:]
    assert_holds(target, folder, NAMES)


def test_of_two_processes_one_makes_it_and_the_other_waits(folder, target):
    def work() -> None:
        def slow(names: list[str]) -> Any:
            for name in names:
                time.sleep(0.05)
                yield name

        os._exit(10 + build_raw_lmdb(folder, target, None, slow))

    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            work()
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [10, 10, 11]
    assert_holds(target, folder, folder.names())
    assert not hidden(target).exists()


def test_rebuilt_lmdb_is_read_anew(folder, target):
    """Its environment is one for each path."""
    build_raw_lmdb(folder, target, NAMES[:1])
    first = open_store(target).read('0001x2')
    shutil.rmtree(target)
    write(folder.root / NAMES[0], 255 - first)
    build_raw_lmdb(folder, target, NAMES[:1])
    np.testing.assert_array_equal(open_store(target).read('0001x2'), 255 - first)


# Damaged


def test_faults_of_a_raw_lmdb_are_named(folder, target):
    def changed(key: bytes, value: bytes | None) -> Path:
        lmdb_store.close_all()
        shutil.rmtree(target, ignore_errors=True)
        build_raw_lmdb(folder, target)
        with lmdb.open(str(target), lock=False) as environment, environment.begin(write=True) as transaction:
            assert transaction.delete(key)
            if value is not None:
                transaction.put(key, value)
        return target

    kind = {'format': lmdb_store.RAW, 'version': 1, 'band_rows': 64}
    marker = lmdb_store.MARKER
    wrong = f'{target}: what this LMDB says of itself cannot be read; make it again'
    for value in (b'', b'{"format"', b'[1]', b'\xff', b'{"format": "x", "more": 1}'):
        assert told(open_store, changed(marker, value)) == wrong
    for value in (b'3', b'[1, 2, 3]'):
        assert told(open_store, changed(marker + b'0001x2', value)) == wrong
    for change in ({'version': 2}, {'format': 'other'}, {'band_rows': 0}):
        text = told(open_store, changed(marker, json.dumps({**kind, **change}).encode()))
        assert text.startswith(f'{target}: an LMDB of version ') and text.endswith('; make it again')
    assert 'is this an LMDB made by BasicSR?' in told(open_store, changed(marker, None))
    expected = f'{target}: 0001x2 is not in the LMDB as its record says; make it again'
    for value in (None, b'\0' * 4):
        assert told(open_store(changed(b'0001x2\x000000', value)).read, '0001x2') == expected
