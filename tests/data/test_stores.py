"""Images in folders and LMDBs: what is found, what is read, and what is wrong with the rest."""

import multiprocessing
import os
import shutil
import struct
import threading
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from helpers.messages import told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from basicsr_clsd.data import lmdb as lmdb_store
from basicsr_clsd.data.stores import FolderStore, ImageStore, open_store
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import decode
from basicsr_clsd.prepare.lmdb_build import build_raw_lmdb

FORMATS = ['.png', '.jpg', '.bmp', '.tif', '.webp', '.ppm']


def noise(height: int = 9, width: int = 14, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype(np.uint8)


def encoded(image: np.ndarray, extension: str) -> bytes:
    done, content = cv2.imencode(extension, image)
    assert done
    return content.tobytes()


def write(folder: Path, *names: str, image: np.ndarray | None = None) -> FolderStore:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(noise() if image is None else image, Path(name).suffix.lower()))
    return FolderStore(folder)


# Folders


def test_names_are_sorted_paths_of_images_alone(tmp_path):
    wanted = ['a.PNG', 'b.Jpeg', 'b/c.bmp', 'b/d/e.webp', 'img 2.jpg', 'z.tif']
    store = write(tmp_path, *reversed(wanted))
    for other in ('Thumbs.db', '.DS_Store', 'notes.txt', '.hidden.png', 'png', 'x.png.part', '.cache/y.png'):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes(b'x')
    assert store.names() == wanted


@pytest.mark.parametrize('extension', ['.png', '.PNG', '.bmp', '.tif', '.ppm'])
def test_pixels_and_size_of_lossless_formats(tmp_path, extension):
    store = write(tmp_path, f'a{extension}')
    np.testing.assert_array_equal(store.read(f'a{extension}'), noise())
    assert store.size(f'a{extension}') == (9, 14)


@pytest.mark.parametrize('extension', ['.jpg', '.webp'])
def test_lossy_formats_are_decoded_as_opencv_does(tmp_path, extension):
    image = cv2.GaussianBlur(noise(40, 30), (9, 9), 0)
    store = write(tmp_path, f'a{extension}', image=image)
    read = store.read(f'a{extension}')
    np.testing.assert_array_equal(read, cv2.imread(str(tmp_path / f'a{extension}')))
    assert np.abs(read.astype(int) - image).mean() < 10
    assert store.size(f'a{extension}') == (40, 30)


def test_gray_becomes_three_equal_channels_and_alpha_is_dropped(tmp_path):
    gray, alpha = noise(channels=1)[..., 0], noise(channels=4)
    write(tmp_path, 'gray.png', image=gray)
    write(tmp_path, 'gray.pgm', image=gray)
    store = write(tmp_path, 'alpha.png', image=alpha)
    for name in ('gray.png', 'gray.pgm'):
        np.testing.assert_array_equal(store.read(name), np.stack([gray] * 3, -1))
    np.testing.assert_array_equal(store.read('alpha.png'), alpha[..., :3])
    assert {store.size(name) for name in store.names()} == {(9, 14)}


def test_palette_png_is_read_in_its_colours(tmp_path):
    palette = Image.fromarray(np.repeat([[0], [1]], 3, 1).astype(np.uint8), 'P')
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / 'a.png')
    assert FolderStore(tmp_path).read('a.png')[:, 0].tolist() == [[0, 0, 255], [255, 0, 0]]


@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp', 'tif'])
@pytest.mark.parametrize('orientation', [1, 3, 5, 6, 8, 9, 0])
def test_size_is_that_of_the_image_as_decoded_whatever_exif_says(tmp_path, extension, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(20, 30)).save(tmp_path / f'a.{extension}', exif=exif)
    store = FolderStore(tmp_path)
    height, width, _ = store.read(f'a.{extension}').shape
    assert store.size(f'a.{extension}') == (height, width)
    assert (height, width) == ((30, 20) if 5 <= orientation <= 8 else (20, 30))


@pytest.mark.parametrize('extension', ['.png', '.jpg', '.bmp', '.ppm'])
def test_size_is_read_from_the_header_alone(tmp_path, extension):
    store = write(tmp_path, f'a{extension}', image=noise(60, 80))
    path = tmp_path / f'a{extension}'
    path.write_bytes(path.read_bytes()[: -60 * 80])
    assert store.size(path.name) == (60, 80)
    told(store.read, path.name)


@pytest.mark.parametrize('extension', FORMATS)
def test_truncated_files_are_named_wherever_they_end(tmp_path, extension, capfd):
    content = encoded(cv2.GaussianBlur(noise(32, 48), (5, 5), 0), extension)
    store, path = FolderStore(tmp_path), tmp_path / f'a{extension}'
    for missing in (1, 2, 4, 12, 13, 40, len(content) // 2, len(content) - 10, len(content) - 1, len(content)):
        path.write_bytes(content[:-missing])
        text = told(store.read, path.name)
        assert text.startswith(f'{path}: ') and 'truncated' in text, missing
    # The libraries below have a habit of complaining by themselves.
    assert capfd.readouterr() == ('', '')


def test_jpeg_with_a_thumbnail_is_truncated_although_the_thumbnail_has_an_end(tmp_path):
    thumbnail = encoded(noise(8, 8), '.jpg')
    content = encoded(noise(200, 200), '.jpg')
    marker = b'\xff\xe1' + struct.pack('>H', len(thumbnail) + 2) + thumbnail
    whole = content[:2] + marker + content[2:]
    assert decode(whole, 'a.jpg').shape == (200, 200, 3)
    assert told(decode, whole[:-1], 'a.jpg') == 'a.jpg: truncated image'


@pytest.mark.parametrize(
    'content', [b'', b'not an image', b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff\xd9', b'BM', b'II*\0', b'P6']
)
def test_files_that_are_no_images_are_named(tmp_path, content, capfd):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    store = FolderStore(tmp_path)
    assert told(store.read, 'a.png') == f'{path}: not an image that can be decoded (broken or truncated)'
    assert told(store.size, 'a.png') == f'{path}: not an image that can be decoded (broken or truncated)'
    assert capfd.readouterr() == ('', '')


def test_altered_png_is_named(tmp_path, capfd):
    content = encoded(noise(), '.png')
    for place in (20, len(content) // 2, len(content) - 14, len(content) - 2):
        altered = bytearray(content)
        altered[place] ^= 0x10
        assert 'a.png: not an image that can be decoded' in told(decode, bytes(altered), 'a.png')
    assert capfd.readouterr() == ('', '')


def test_png_may_have_damaged_chunks_that_do_not_matter_and_bytes_behind_it():
    content = encoded(noise(), '.png')
    comment = b'tEXt' + b'Comment\0hello'
    chunk = struct.pack('>I', len(comment) - 4) + comment
    after_header = 8 + 4 + 4 + 13 + 4
    for checksum in (zlib.crc32(comment), 0):
        with_comment = content[:after_header] + chunk + struct.pack('>I', checksum) + content[after_header:]
        np.testing.assert_array_equal(decode(with_comment + b'more', 'a.png'), noise())


@given(st.sampled_from(FORMATS), st.data())
@settings(deadline=None, max_examples=80, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_file_is_read_or_told_and_never_crashes(tmp_path, extension, data):
    content = bytearray(encoded(cv2.GaussianBlur(noise(), (5, 5), 0), extension))
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers are where a byte matters most.
        place = data.draw(st.integers(0, min(60, len(content) - 1)) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    path = tmp_path / f'a{extension}'
    path.write_bytes(content)
    store = FolderStore(tmp_path)
    for call in (store.read, store.size):
        try:
            result = call(path.name)
        except UserError as error:
            assert str(error).startswith(f'{path}: ') and len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert isinstance(result, tuple) or (result.dtype == np.uint8 and result.shape[2] == 3)


def test_file_that_is_gone_is_named(tmp_path):
    path, store = tmp_path / 'gone.png', FolderStore(tmp_path)
    assert told(store.read, 'gone.png') == f'{path}: cannot be read: No such file or directory'
    assert told(store.size, 'gone.png').startswith(f'{path}: ')


def test_root_must_be_a_folder(tmp_path):
    (tmp_path / 'file').touch()
    for name in ('gone', 'gone.lmdb', 'file'):
        assert told(open_store, tmp_path / name) == f'{tmp_path / name}: no such folder'


# LMDBs


@pytest.fixture
def lmdb_root(tmp_path) -> Path:
    """An LMDB by BasicSR of the images b, a and one whose key holds a dot and a bracket."""
    folder, root = tmp_path / 'images', tmp_path / 'images.lmdb'
    keys = ['a', 'b', 'c.d (1)']
    for number, key in enumerate(keys):
        write(folder, f'{key}.png', image=noise() + number)
    make_lmdb_from_imgs(str(folder), str(root), [f'{key}.png' for key in keys], keys, map_size=2**20)
    return root


@pytest.fixture(params=['png', 'raw'])
def either_root(lmdb_root, tmp_path, request) -> Path:
    """An LMDB by BasicSR, and one of the same images as raw pixels."""
    if request.param == 'png':
        return lmdb_root
    build_raw_lmdb(FolderStore(tmp_path / 'images'), tmp_path / 'raw.lmdb')
    return tmp_path / 'raw.lmdb'


def test_lmdb_is_read_like_the_folder_it_was_made_of(either_root, tmp_path):
    store, folder = open_store(either_root), open_store(tmp_path / 'images')
    assert store.names() == ['a', 'b', 'c.d (1)']
    for name in store.names():
        np.testing.assert_array_equal(store.read(name), folder.read(f'{name}.png'))
        assert store.size(name) == folder.size(f'{name}.png')


def test_two_stores_on_one_lmdb_in_one_process(either_root):
    first, second = open_store(either_root), open_store(either_root.parent / '.' / either_root.name)
    for name in first.names():
        np.testing.assert_array_equal(first.read(name), second.read(name))


class Images(Dataset):
    """Two stores, read by turns."""

    def __init__(self, *stores: ImageStore) -> None:
        self.stores = stores

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        store = self.stores[index % 2]
        return int(store.read(store.names()[index % 3]).sum())


@pytest.mark.parametrize('workers', [1, 2])
def test_loader_processes_read_an_lmdb_that_is_open_here(either_root, workers):
    images = Images(open_store(either_root), open_store(either_root))
    expected = [images[index] for index in range(12)]
    loader = DataLoader(images, batch_size=None, num_workers=workers, multiprocessing_context='fork')
    for _ in range(2):
        assert list(loader) == expected
        assert [images[index] for index in range(12)] == expected


def test_child_does_not_share_the_environment_of_its_parent(either_root):
    store = open_store(either_root)
    expected = store.read('a').sum()
    child = os.fork()
    if not child:
        status = 1
        try:
            shared = bool(lmdb_store._environments)
            status = 0 if not shared and store.read('a').sum() == expected else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read('a').sum() == expected


@pytest.mark.slow
@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_new_process_opens_the_lmdb_for_itself(either_root, method):
    store = open_store(either_root)
    expected = [store.read(name) for name in store.names()]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as processes:
        for image, other in zip(processes.map(store.read, store.names()), expected, strict=True):
            np.testing.assert_array_equal(image, other)


def test_threads_may_read_while_the_process_forks(either_root):
    """Before a fork the environment is closed; a thread that read its memory at that moment would end the process."""
    store = open_store(either_root)
    expected, ended, wrong = store.read('a'), threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            if not np.array_equal(store.read('a'), expected):
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        child = os.fork()
        if not child:
            os._exit(0 if np.array_equal(store.read('a'), expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_lmdb_faults_are_named(lmdb_root, tmp_path):
    copy = tmp_path / 'copy.lmdb'

    def fresh() -> Path:
        lmdb_store.close_all()
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(lmdb_root, copy)
        return copy / 'meta_info.txt'

    hint = 'is this an LMDB made by BasicSR?'
    fresh().unlink()
    assert told(open_store, copy).endswith(f'/meta_info.txt: cannot be read (No such file or directory); {hint}')
    fresh().write_bytes(b'\xff\xfe')
    assert told(open_store, copy).endswith(f'/meta_info.txt: cannot be read (not a text file); {hint}')
    for line in ('a.png', 'a.png (9)', 'a.png (x,y,3) 1', '(9,14,3) 1'):
        fresh().write_text(f'{line}\n', encoding='utf-8')
        assert 'meta_info.txt: expected lines like' in told(open_store, copy) and line in told(open_store, copy)
    with fresh().open('a', encoding='utf-8') as meta:
        meta.write('ghost.png (9,14,3) 1\n')
    store = open_store(copy)
    assert store.size('ghost') == (9, 14)
    assert told(store.read, 'ghost') == f'{copy}: ghost is in meta_info.txt but not in the LMDB'
    fresh()
    (copy / 'data.mdb').write_bytes(b'not an LMDB' * 1000)
    assert told(open_store(copy).read, 'a').startswith(f'{copy}: not a readable LMDB: ')
    fresh()
    whole = (copy / 'data.mdb').read_bytes()
    (copy / 'data.mdb').write_bytes(whole[:-4096])
    assert told(open_store(copy).read, 'a').startswith(f'{copy}: not a readable LMDB: data.mdb has less than its ')
    fresh()
    (copy / 'data.mdb').unlink()
    assert told(open_store(copy).read, 'a').startswith(f'{copy}: not a readable LMDB: ')


def test_undecodable_image_in_an_lmdb_is_named(tmp_path):
    import lmdb  # noqa: PLC0415

    root = tmp_path / 'bad.lmdb'
    with lmdb.open(str(root), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        transaction.put(b'a', encoded(noise(), '.png')[:-20])
    (root / 'meta_info.txt').write_text('a.png (9,14,3) 1\n', encoding='utf-8')
    assert told(open_store(root).read, 'a') == f'{root}: a: not an image that can be decoded (broken or truncated)'
