"""``prepare_data.py div2k`` on a DIV2K of a few small images, of the same names and folders: archives to training."""

import hashlib
import json
import os
import platform
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers.file_server import serving
from helpers.records import rows

from basicsr_clsd.config import load
from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.lmdb import RawLmdbStore
from basicsr_clsd.data.stores import open_store
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.prepare import div2k
from basicsr_clsd.runtime.locks import exclusive

REPO = Path(__file__).resolve().parents[2]
IMAGES = {'train': (1, 3), 'valid': (801, 810)}  # the numbers of the validation images of the shipped options


def image(number: int) -> np.ndarray:
    """An HR image; its sizes are multiples of 12, as DIV2K's are."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (108, 120 + 12 * (number % 2), 3)).astype(np.uint8)


def write_look_alike(folder: Path) -> dict[str, Any]:
    """Write the eight archives to a folder; returns their catalogue."""
    folder.mkdir()
    known: dict[str, Any] = {'url': 'http://127.0.0.1:1/', 'images': {}, 'archives': {}}
    for split, (first, last) in IMAGES.items():
        known['images'][split] = [first, last]
        for scale in (1, 2, 3, 4):
            inside = f'DIV2K_{split}_HR' if scale == 1 else f'DIV2K_{split}_LR_bicubic/X{scale}'
            path = folder / f'{inside.replace("/", "_")}.zip'
            with zipfile.ZipFile(path, 'w') as archive:
                for number in range(first, last + 1):
                    suffix = '' if scale == 1 else f'x{scale}'
                    content = cv2.imencode('.png', matlab_resize(image(number), 1 / scale))[1].tobytes()
                    archive.writestr(f'{inside}/{number:04d}{suffix}.png', content)
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            known['archives'][path.name] = {'bytes': len(content), 'checksum': f'sha256:{digest}'}
    return known


class Place:
    """A folder with the archives, their catalogue, and what comes of them in ``datasets``."""

    def __init__(self, root: Path, prepare_data: Callable[..., Any]) -> None:
        self.root, self.prepare_data = root, prepare_data
        self.archives, self.data, self.catalogue = root / 'archives', root / 'datasets', root / 'catalogue.yml'
        self.home = self.data / 'DIV2K'

    def prepare(self, *arguments: str, archives: bool = True, **accident: Any) -> Any:
        given = ['--archives', 'archives'] if archives else []
        return self.prepare_data('div2k', '--catalogue', 'catalogue.yml', *given, *arguments, cwd=self.root, **accident)

    def files(self) -> dict[str, bytes]:
        """Everything prepared, but for times and the order of an LMDB's pages."""
        paths = [path for path in self.data.rglob('*') if path.is_file()]
        names = {path.relative_to(self.data).as_posix(): path for path in paths}
        kept = ('.json', '.mdb')
        return {name: b'' if name.endswith(kept) else path.read_bytes() for name, path in names.items()}

    def times(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.data.rglob('*')}

    def sets(self, *scales: int) -> list[div2k.ImageSet]:
        return [div2k.ImageSet(split, scale) for split in ('train', 'valid') for scale in (1, *scales)]

    def check_folders(self, *scales: int) -> None:
        for images in self.sets(*scales):
            first, last = IMAGES[images.split]
            store = open_store(self.home / images.folder)
            assert store.names() == [images.image(number) for number in range(first, last + 1)]
            for number in range(first, last + 1):
                expected = matlab_resize(image(number), 1 / images.scale)
                np.testing.assert_array_equal(store.read(images.image(number)), expected)

    def check_lmdbs(self, *scales: int, suffix: bool = True) -> None:
        """``suffix``: LR images have ``x2`` in their names, as their files."""
        for images in self.sets(*scales):
            folder = open_store(self.home / images.folder)
            stored = open_store(self.home / f'{images.folder}.lmdb')
            keys = [name[:-4] if suffix else name[:4] for name in folder.names()]
            assert stored.names() == keys
            for name, key in zip(folder.names(), keys, strict=True):
                np.testing.assert_array_equal(stored.read(key), folder.read(name))


@pytest.fixture(scope='session')
def look_alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('div2k')
    (folder / 'catalogue.yml').write_text(yaml.safe_dump(write_look_alike(folder / 'archives')))
    return folder


@pytest.fixture
def place(tmp_path: Path, look_alike: Path, prepare_data: Callable[..., Any]) -> Place:
    shutil.copytree(look_alike, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path, prepare_data)


@pytest.fixture
def server(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with serving() as files:
        files.files = {path.name: path.read_bytes() for path in place.archives.iterdir()}
        known = yaml.safe_load(place.catalogue.read_text())
        place.catalogue.write_text(yaml.safe_dump({**known, 'url': files.url}))
        yield files


def test_published_archives_are_those_of_div2k():
    known = div2k.load_catalogue()
    assert known.url == 'https://data.vision.ee.ethz.ch/cvl/DIV2K/'
    sets = [div2k.ImageSet(split, scale) for split in ('train', 'valid') for scale in (1, 2, 3, 4)]
    assert {images.archive for images in sets} == set(known.archives)
    assert sum(archive.bytes for archive in known.archives.values()) == 5_783_532_392
    assert known.images.train == (1, 800) and known.images.valid == (801, 900)
    assert div2k.load_catalogue(mirror='http://mirror').url == 'http://mirror'


def test_archives_become_checked_folders_and_lmdbs(place):
    ended = place.prepare()
    assert ended.code == 0, ended.err
    assert ended.err == ''
    place.check_folders(2, 3, 4)
    place.check_lmdbs(2, 3, 4)
    assert sorted(path.name for path in place.data.iterdir()) == ['DIV2K']
    assert not (place.home / '.unpacked').exists()
    assert 'DIV2K is ready in datasets/DIV2K' in ended.out
    # And once more: nothing is written, and the archives are not needed any more.
    before = place.times()
    shutil.rmtree(place.archives)
    place.archives.mkdir()
    again = place.prepare()
    assert (again.code, again.err) == (0, '')
    assert place.times() == before


def test_scales_and_storages_can_be_chosen_and_added(place):
    assert place.prepare('--scales', '3', '--storage', 'folder').code == 0
    place.check_folders(3)
    assert not list(place.home.rglob('*.lmdb')) and not (place.home / 'DIV2K_train_LR_bicubic' / 'X2').exists()
    before = place.times()
    ended = place.prepare('--scales', '2', '3', '--storage', 'png-lmdb')
    assert ended.code == 0, ended.err
    place.check_folders(2, 3)
    place.check_lmdbs(2, 3, suffix=False)  # BasicSR pairs by equal keys
    assert (place.home / 'DIV2K_train_HR.lmdb' / 'meta_info.txt').exists()
    after = place.times()
    assert all(after[path] == time for path, time in before.items() if path.suffix == '.png')
    assert ended.out.count('Unpacked') == 2


def test_download_unpack_and_go_on_after_a_broken_connection(place, server):
    server.cut_after, server.statuses = [None, 2000], [200, 200, 404]
    ended = place.prepare('--scales', '2', archives=False)
    assert ended.code == 1
    name = 'DIV2K_train_LR_bicubic_X2.zip'
    assert ended.err == f'error: {server.url}{name}: cannot be downloaded (the server answers 404 Not Found)\n'
    assert [file for file, _ in server.requests] == ['DIV2K_train_HR.zip', name, name]
    server.requests.clear()
    ended = place.prepare('--scales', '2', archives=False)
    assert (ended.code, ended.err) == (0, '')
    assert 'DIV2K_train_HR.zip' not in {file for file, _ in server.requests}
    place.check_folders(2)
    place.check_lmdbs(2)
    server.requests.clear()
    shutil.rmtree(place.data / 'archives')
    assert place.prepare('--scales', '2', archives=False).code == 0
    assert server.requests == []


def test_mirror_is_asked_in_place_of_the_catalogue(place, server):
    known = yaml.safe_load(place.catalogue.read_text())
    place.catalogue.write_text(yaml.safe_dump({**known, 'url': 'http://127.0.0.1:1/nothing'}))
    assert place.prepare('--mirror', server.url, '--scales', '4', '--storage', 'folder', archives=False).code == 0
    place.check_folders(4)


def test_wrong_checksum_ends_in_one_line_and_the_next_run_starts_clean(place, server):
    good = server.files['DIV2K_train_HR.zip']
    server.files['DIV2K_train_HR.zip'] = good[:1000] + bytes([good[1000] ^ 1]) + good[1001:]
    ended = place.prepare(archives=False)
    assert ended.code == 1
    assert 'DIV2K_train_HR.zip: what came has another checksum than sha256:' in ended.err and ended.err.count('\n') == 1
    assert place.files() == {}
    server.files['DIV2K_train_HR.zip'] = good
    assert place.prepare('--scales', '2', '--storage', 'folder', archives=False).code == 0
    place.check_folders(2)


def refuse(place: Place, reason: str, *arguments: str, **how: Any) -> str:
    ended = place.prepare(*arguments, **how)
    assert ended.code == 2, (ended.out, ended.err)
    assert ended.err.startswith('error: ') and ended.err.count('\n') == 1
    assert reason in ended.err
    return ended.out


def test_archives_that_are_missing_or_wrong_are_named(place):
    archive = place.archives / 'DIV2K_valid_LR_bicubic_X3.zip'
    good = archive.read_bytes()
    archive.unlink()
    refuse(place, 'archives: not there: DIV2K_valid_LR_bicubic_X3.zip')
    assert place.files() == {}
    archive.write_bytes(good[:-1])
    refuse(place, f'{archive.name}: has {len(good) - 1} bytes where {len(good)} were expected')
    archive.write_bytes(good[:-1] + b'x')
    refuse(place, f'{archive.name}: its checksum is not sha256:')
    assert archive.read_bytes() == good[:-1] + b'x'
    archive.write_bytes(good)
    assert place.prepare('--storage', 'folder').code == 0


def repack(place: Place, name: str, files: dict[str, bytes]) -> None:
    """Put another archive in the place of one, in the catalogue too."""
    with zipfile.ZipFile(place.archives / name, 'w') as archive:
        for inside, content in files.items():
            archive.writestr(inside, content)
    content = (place.archives / name).read_bytes()
    known = yaml.safe_load(place.catalogue.read_text())
    known['archives'][name] = {'bytes': len(content), 'checksum': f'sha256:{hashlib.sha256(content).hexdigest()}'}
    place.catalogue.write_text(yaml.safe_dump(known))


def test_archive_that_leads_outside_writes_nothing(place, look_alike):
    (place.root / 'outside.png').write_text('mine')
    repack(place, 'DIV2K_train_HR.zip', {'DIV2K_train_HR/0001.png': b'', '../../../outside.png': b'theirs'})
    refuse(place, "not safe ('../../../outside.png' leads out of the folder)")
    assert (place.root / 'outside.png').read_text() == 'mine'
    assert place.files() == {}
    repack(place, 'DIV2K_train_HR.zip', {'another/0001.png': b''})
    refuse(place, 'DIV2K_train_HR.zip: has no folder DIV2K_train_HR')
    # What was unpacked is not mistaken for that of the right archive.
    shutil.copytree(look_alike, place.root, dirs_exist_ok=True)
    assert place.prepare('--scales', '2', '--storage', 'folder').code == 0
    place.check_folders(2)


def test_all_faults_are_listed_at_once(place):
    assert place.prepare('--scales', '2', '--storage', 'folder').code == 0
    train, small = place.home / 'DIV2K_train_HR', place.home / 'DIV2K_train_LR_bicubic' / 'X2'
    (train / '0001.png').unlink()
    content = (train / '0002.png').read_bytes()
    (train / '0002.png').write_bytes(content[: len(content) // 2])
    cv2.imwrite(str(small / '0003x2.png'), image(3)[:50, :40])
    shutil.copy(small / '0001x2.png', small / '0004x2.png')
    out = refuse(place, 'datasets/DIV2K: 4 faults, listed above', '--scales', '2', archives=False)
    listed = [line for line in out.splitlines() if line.startswith('datasets/')]
    assert [line.split(': ')[0].removeprefix('datasets/DIV2K/DIV2K_train_') for line in listed] == [
        'HR/0001.png',
        'HR/0002.png',
        'LR_bicubic/X2/0004x2.png',
        'LR_bicubic/X2/0003x2.png',
    ]
    assert listed[0].endswith(': missing')
    assert 'not an image that can be decoded' in listed[1]
    assert listed[2].endswith(': not one of this set')
    assert listed[3].endswith(': 40x50 pixels, where HR has 132x108')
    assert not list(place.home.rglob('*.lmdb'))


def test_folders_that_were_unpacked_by_hand_are_checked_and_used(place):
    for name in ('DIV2K_train_HR', 'DIV2K_valid_HR'):
        with zipfile.ZipFile(place.archives / f'{name}.zip') as archive:
            archive.extractall(place.home)
        (place.archives / f'{name}.zip').unlink()
    (place.home / 'DIV2K_train_LR_bicubic' / 'X2').mkdir(parents=True)  # an empty folder is none
    ended = place.prepare('--scales', '2')
    assert ended.code == 0, ended.err
    place.check_folders(2)
    place.check_lmdbs(2)


def test_disk_too_small_is_told_before_the_download(place, server):
    known = yaml.safe_load(place.catalogue.read_text())
    known['archives']['DIV2K_train_HR.zip']['bytes'] = 2**50
    place.catalogue.write_text(yaml.safe_dump(known))
    ended = place.prepare(archives=False)
    assert ended.code == 1
    assert ended.err.count('\n') == 1
    # To download and to unpack; 2**30 MiB each, and the other archives.
    match = re.search("needs (\\d+) MiB and the disk has \\d+: 'datasets/DIV2K'", ended.err)
    assert match and 2**31 < int(match[1]) < 2**31 + 10
    assert server.requests == []


@pytest.mark.parametrize('archives', [True, False])
def test_full_disk_ends_in_one_line_and_leaves_room_to_go_on(place, server, archives):
    ended = place.prepare('--scales', '2', archives=archives, file_limit=20_000)
    assert ended.code == 1
    assert 'File too large' in ended.err and ended.err.count('\n') == 1, ended.err
    assert 'Traceback' not in ended.err
    ended = place.prepare('--scales', '2', archives=archives)
    assert (ended.code, ended.err) == (0, '')
    place.check_folders(2)
    place.check_lmdbs(2)


def test_catalogue_mistakes_are_named(place):
    known = yaml.safe_load(place.catalogue.read_text())
    archive = known['archives']['DIV2K_train_HR.zip']
    for change, reason in (
        ({'urll': 'x'}, 'catalogue.yml: urll: '),
        ({'images': {'train': [1, 3]}}, 'catalogue.yml: images.valid: '),
        ({'images': {'train': [3, 1], 'valid': [1, 2]}}, 'images.train: value error, the first number is greater'),
        ({'archives': {'a.zip': {**archive, 'checksum': 'sha1:00'}}}, 'catalogue.yml: archives.a.zip.checksum: '),
        ({'archives': {}}, 'archives: DIV2K_train_HR.zip is not in the catalogue'),
    ):
        place.catalogue.write_text(yaml.safe_dump({**known, **change}))
        refuse(place, reason)
    refuse(place, 'nowhere.yml', '--catalogue', 'nowhere.yml')
    assert place.files() == {}


def test_two_commands_do_not_write_to_one_folder(place):
    place.data.mkdir()
    with exclusive(place.data / '.lock', place.data):
        refuse(place, f'datasets: process {os.getpid()} on {platform.node()} is preparing data there')
    assert place.files() == {}


ZIP = 'DIV2K_train_HR.zip'
MOMENTS = {
    'half downloaded': {'half_written': f'archives/unfinished/{ZIP}.part'},
    'downloaded': {'before': 'os.fsync', 'path': f'archives/unfinished/{ZIP}.part'},
    'checksum known': {'before': 'os.replace', 'path': f'archives/unfinished/{ZIP}.part'},
    'half unpacked': {'half_written': f'DIV2K/.unpacked/.{ZIP}.DIGEST.tmp/DIV2K_train_HR/0002.png'},
    'unpacked': {'before': 'os.replace', 'path': f'DIV2K/.unpacked/.{ZIP}.DIGEST.tmp'},
    'unpacked under its name': {'before': 'os.replace', 'path': f'DIV2K/.unpacked/{ZIP}.DIGEST/DIV2K_train_HR'},
    'verified': {'half_written': 'DIV2K/..DIV2K_train_HR.verified.json.tmp'},
    'half stored': {'half_written': 'DIV2K/.DIV2K_train_HR.lmdb.tmp/data.mdb'},
}


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory, look_alike, prepare_data) -> Place:
    root = tmp_path_factory.mktemp('undisturbed')
    shutil.copytree(look_alike, root, dirs_exist_ok=True)
    place = Place(root, prepare_data)
    with serving() as server:
        server.files = {path.name: path.read_bytes() for path in place.archives.iterdir()}
        ended = place.prepare('--scales', '2', '--mirror', server.url, archives=False, count_to=str(root / 'events'))
    assert ended.code == 0, ended.err
    return place


@pytest.mark.parametrize('moment', [*MOMENTS, 0.7, 0.8, 0.9])
def test_killed_anywhere_it_goes_on_and_ends_with_the_same(place, server, undisturbed, moment):
    if moment in MOMENTS:
        digest = hashlib.sha256(server.files[ZIP]).hexdigest()[:8]
        paths = {name: str(place.data / path.replace('DIGEST', digest)) for name, path in MOMENTS[moment].items()}
        accident = {**paths, **({'before': MOMENTS[moment]['before']} if 'before' in paths else {})}
    else:  # the first two thirds of all events are imports
        accident = {'at_event': int(moment * int((undisturbed.root / 'events').read_text()))}
    killed = place.prepare('--scales', '2', archives=False, **accident)
    assert killed.code == -9
    check_nothing_half_built(place)
    there = {name: (place.data / 'archives' / name).exists() for name in server.files}
    part = place.data / 'archives' / 'unfinished' / f'{ZIP}.part'
    size = part.stat().st_size if part.exists() else 0
    server.requests.clear()
    ended = place.prepare('--scales', '2', archives=False)
    assert (ended.code, ended.err) == (0, '')
    # What was downloaded is not downloaded again.
    for (name, _), start in zip(server.requests, server.starts(), strict=True):
        assert not there[name]
        assert start == (size if name == ZIP else 0)
    if moment in ('downloaded', 'checksum known'):
        assert ZIP not in {name for name, _ in server.requests}
    assert place.files() == undisturbed.files()
    place.check_folders(2)
    place.check_lmdbs(2)


def check_nothing_half_built(place: Place) -> None:
    """Whatever is there under its name is whole."""
    for archive in (place.data / 'archives').glob('*.zip'):
        assert archive.read_bytes() == (place.archives / archive.name).read_bytes()
    for images in place.sets(2):
        folder, target = place.home / images.folder, place.home / f'{images.folder}.lmdb'
        first, last = IMAGES[images.split]
        if folder.exists():
            assert len(open_store(folder).names()) == last - first + 1
        if target.exists():
            store = open_store(target)
            assert len(store.names()) == last - first + 1
            for name in store.names():
                np.testing.assert_array_equal(store.read(name), open_store(folder).read(f'{name}.png'))


def test_verified_images_are_not_decoded_again_unless_they_changed(place):
    assert place.prepare('--scales', '2', '--storage', 'folder').code == 0
    folder = place.home / 'DIV2K_train_HR'
    manifest = place.home / '.DIV2K_train_HR.verified.json'
    entries = json.loads(manifest.read_text())
    assert sorted(entries) == ['0001.png', '0002.png', '0003.png']
    # The note is believed for a file that is as it was: a size that is none comes back.
    entries['0001.png'][2] = 9
    manifest.write_text(json.dumps(entries))
    out = refuse(place, '1 fault', '--scales', '2', '--storage', 'folder')
    assert '66x54 pixels, where HR has 132x9' in out
    # Not so after a change, and a damaged manifest is none.
    os.utime(folder / '0001.png', ns=(1, 1))
    assert place.prepare('--scales', '2', '--storage', 'folder').code == 0
    manifest.write_text('{"0001.png": ')
    assert place.prepare('--scales', '2', '--storage', 'folder').code == 0
    assert sorted(json.loads(manifest.read_text())) == sorted(entries)


TINY = ('num_gpu=0', 'network_g:num_feat=8', 'network_g:num_block=1', 'train:total_iter=2', 'val:val_freq=2')


def test_shipped_options_train_on_what_was_prepared(place, run_command, monkeypatch):
    monkeypatch.delenv('CLSD_DATA', raising=False)
    assert place.prepare('--scales', '2').code == 0
    small = ('datasets:train:batch_size_per_gpu=2', 'datasets:train:num_worker_per_gpu=0')
    roots = [f'path:{name}_root={place.root / name}' for name in ('experiments', 'tb')]
    options = REPO / 'options' / 'train_EDSR_x2.yml'
    ended = run_command('train', '-opt', options, '--force_yml', *TINY, *small, *roots, cwd=place.root)
    assert ended.code == 0, ended.err
    validations = rows(place.root / 'experiments' / 'train_EDSR_x2', 'validation')
    assert {row['dataset'] for row in validations} == {'DIV2K801-810'}
    for images in place.sets(2):
        folder = f'datasets/DIV2K/{images.folder}'
        assert f'{folder}.lmdb is read, which holds the pixels of {folder}' in ended.out


def test_shipped_options_of_all_scales_find_what_was_prepared(place, monkeypatch):
    monkeypatch.delenv('CLSD_DATA', raising=False)
    monkeypatch.chdir(place.root)
    for storage in ('folder', 'raw'):
        assert place.prepare('--storage', storage).code == 0
        for scale in (2, 3, 4):
            options = load(REPO / 'options' / f'train_CLSD_x{scale}.yml', ['datasets:train:gt_size=48'])
            for phase, count in (('train', 3), ('val', 10)):
                data = PairedDataset({**options.datasets[phase].as_dict(), 'phase': phase, 'scale': scale})
                assert isinstance(data.gt, RawLmdbStore) == (storage == 'raw')
                assert len(data) == count
                first = IMAGES['train' if phase == 'train' else 'valid'][0]
                np.testing.assert_array_equal(data.gt.read(data.pairs[0][0]), image(first))
                np.testing.assert_array_equal(data.lq.read(data.pairs[0][1]), matlab_resize(image(first), 1 / scale))
