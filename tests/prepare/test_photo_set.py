"""``prepare_data.py folder``: one's own photos, made into a set that trains."""

import json
import os
import platform
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from basicsr_clsd.data.stores import open_store
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.prepare.photo_set import safe_names
from basicsr_clsd.runtime.locks import exclusive

REPO = Path(__file__).resolve().parents[2]
SHRINK = (  # what makes a training of the printed command small enough for a test
    'network_g:num_feat=4',
    'network_g:num_block=2',
    'network_g:head_taps=[1]',
    'network_g:head_num_block=1',
    'num_gpu=0',
    'datasets:train:num_worker_per_gpu=0',
    'datasets:train:batch_size_per_gpu=2',
    'datasets:train:gt_size=24',
)


def photo(number: int, height: int = 53, width: int = 67) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write_photos(folder: Path, *numbers: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        assert cv2.imwrite(str(folder / f'p{number:02d}.png'), photo(number))
    return folder


@pytest.fixture
def prepare(tmp_path: Path, prepare_data: Any) -> Any:
    """``prepare(*arguments)`` runs ``folder photos -o set --min-size 24`` with these arguments."""

    def run(*arguments: str, out: str = 'set', source: str = 'photos', **accident: Any) -> Any:
        small = [] if '--min-size' in arguments else ['--min-size', '24']
        return prepare_data('folder', source, '-o', out, *small, *arguments, cwd=tmp_path, **accident)

    return run


def images(folder: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(folder).as_posix(): read(path) for path in folder.rglob('*.png')}


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def parts(folder: Path) -> dict[str, str]:
    """Which part each image is in."""
    return {path.stem: path.parts[-3] for path in folder.glob('*/HR/*.png')}


def refused(ended: Any, reason: str) -> None:
    assert ended.code == 2, (ended.out, ended.err)
    assert reason in ended.err
    assert ended.err.startswith('error: ') and ended.err.count('\n') == 1


# The images


def test_hr_is_cropped_for_all_scales_and_lr_is_matlabs_bicubic_of_it(tmp_path, prepare):
    write_photos(tmp_path / 'photos', *range(6))
    ended = prepare('--val', '2', '--storage', 'folder')
    assert (ended.code, ended.err) == (0, '')
    found = images(tmp_path / 'set')
    split = parts(tmp_path / 'set')
    assert sorted(split) == [f'p{number:02d}' for number in range(6)]
    assert sorted(split.values()) == ['train'] * 4 + ['val'] * 2
    for number in range(6):
        name = f'p{number:02d}'
        hr = photo(number)[:48, :60]  # multiples of 12
        np.testing.assert_array_equal(found.pop(f'{split[name]}/HR/{name}.png'), hr)
        for scale in (2, 3, 4):
            lr = found.pop(f'{split[name]}/LRbicx{scale}/{name}.png')
            np.testing.assert_array_equal(lr, matlab_resize(hr, 1 / scale))
    assert found == {}
    assert '4 photos to train on, 2 to validate on' in ended.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ['photos', 'set']


def test_hr_loses_no_more_than_the_scales_ask_for(tmp_path, prepare):
    write_photos(tmp_path / 'photos', 0, 1)
    assert prepare('--scales', '2', '--storage', 'folder').code == 0
    assert {image.shape[:2] for name, image in images(tmp_path / 'set').items() if 'HR' in name} == {(52, 66)}


def test_names_of_photos_in_folders_are_made_safe_and_tell_where_they_are_from(tmp_path, prepare):
    source = tmp_path / 'photos'
    (source / 'trip 1').mkdir(parents=True)
    names = [
        'a.png',
        'A.bmp',
        'trip 1/IMG.0001.png',
        'trip_1_IMG_0001.png',
        'Grüße 雪.png',
        '雪.png',
        '雨.png',
        'ok-1_b.png',
    ]
    for number, name in enumerate(names):
        (source / name).write_bytes(cv2.imencode(Path(name).suffix, photo(number))[1].tobytes())
    assert prepare('--storage', 'folder', '--scales', '2').code == 0
    made_from = json.loads((tmp_path / 'set' / 'made_from.json').read_text())['images']
    assert sorted(made_from.values()) == sorted(names)
    for image, name in made_from.items():
        part, stem = image.split('/')
        np.testing.assert_array_equal(
            read(tmp_path / 'set' / part / 'HR' / f'{stem}.png'), photo(names.index(name))[:52, :66]
        )
        assert all(letter.isascii() and (letter.isalnum() or letter in '-_') for letter in stem)
    stems = [image.split('/')[1] for image in made_from]
    assert len({stem.casefold() for stem in stems}) == len(names)
    assert 'ok-1_b' in stems


def test_safe_names():
    assert safe_names(['a.jpg', 'b/c d.tar.jpg', 'x']) == {'a.jpg': 'a', 'b/c d.tar.jpg': 'b_c_d_tar', 'x': 'x'}
    clash = safe_names(['a.jpg', 'a.png', 'b.png'])
    assert clash['b.png'] == 'b' and len(set(clash.values())) == 3
    assert all(name.startswith('a_') and len(name) == 10 for photo, name in clash.items() if photo != 'b.png')
    assert safe_names(['a.png', 'c.png', 'a.jpg'])['a.jpg'] == clash['a.jpg']  # whatever else there is
    long = safe_names(['x' * 300 + '.png', 'x' * 301 + '.png'])
    assert len(set(long.values())) == 2 and max(map(len, long.values())) < 120
    taken = safe_names(['b.png', 'b.jpg', f'{safe_names(["b.png", "b.jpg"])["b.png"]}.png'])
    assert len(set(taken.values())) == 3


def test_copies_and_small_photos_are_left_out_and_told(tmp_path, prepare):
    source = write_photos(tmp_path / 'photos', 0, 1, 2)
    cv2.imwrite(str(source / 'p00 (1).bmp'), photo(0))
    cv2.imwrite(str(source / 'thumb.png'), photo(9, 25, 40))
    (source / 'notes.txt').write_text('x')
    deep = np.full((60, 60, 4), 40000, np.uint16)
    cv2.imwrite(str(source / 'deep.png'), deep)
    ended = prepare('--scales', '3', '--min-size', '27', '--storage', 'folder')
    assert ended.code == 0
    assert sorted(parts(tmp_path / 'set')) == ['deep', 'p00_1', 'p01', 'p02']
    for line in (
        'copies, left out: p00.png (of p00 (1).bmp)',
        'smaller than 27 pixels, left out: thumb.png (40x25)',
        'no photos, left out: notes.txt',
        '16 bits rounded to 8: deep.png',
        'transparent parts laid on white: deep.png',
    ):
        assert line in ended.out.splitlines()


def test_default_of_the_smallest_size_is_the_patch_of_the_shipped_options(tmp_path, prepare_data):
    source = write_photos(tmp_path / 'photos', 0)
    for side in (191, 192):
        cv2.imwrite(str(source / f'{side}.png'), photo(side, side, 200))
    for side in (95, 97):
        cv2.imwrite(str(source / f'{side}.png'), photo(side, 200, side))
    arguments = ('folder', 'photos', '--val', '0', '--storage', 'folder', '-o')
    assert prepare_data(*arguments, 'a', cwd=tmp_path).code == 0
    assert sorted(parts(tmp_path / 'a')) == ['192']
    assert prepare_data(*arguments, 'b', '--scales', '2', cwd=tmp_path).code == 0
    assert sorted(parts(tmp_path / 'b')) == ['191', '192', '97']


# The split


def test_photos_added_later_do_not_change_the_part_of_the_others(tmp_path, prepare):
    write_photos(tmp_path / 'photos', *range(0, 40, 2))
    options = ('--val-fraction', '0.3', '--storage', 'folder', '--scales', '2')
    assert prepare(*options, out='one').code == 0
    assert prepare(*options, out='same').code == 0
    assert prepare(*options, '--seed', '1', out='other').code == 0
    write_photos(tmp_path / 'photos', *range(40))
    assert prepare(*options, out='more').code == 0
    one, more = parts(tmp_path / 'one'), parts(tmp_path / 'more')
    assert parts(tmp_path / 'same') == one == {name: more[name] for name in one}
    assert len(more) == 40 and set(more.values()) == set(one.values()) == {'train', 'val'}
    other = parts(tmp_path / 'other')
    assert other.keys() == one.keys() and other != one


@pytest.mark.parametrize(
    ('options', 'count'), [((), 1), (('--val-fraction', '0.999'), 3), (('--val-fraction', '0'), 0), (('--val', '0'), 0)]
)
def test_a_fraction_leaves_something_to_train_and_to_validate_on(tmp_path, prepare, options, count):
    write_photos(tmp_path / 'photos', *range(4))
    assert prepare(*options, '--storage', 'folder', '--scales', '2').code == 0
    assert list(parts(tmp_path / 'set').values()).count('val') == count
    assert (tmp_path / 'set' / 'val').exists() == (count > 0)


# What is not done


def test_photos_that_cannot_be_used_are_all_listed_and_nothing_is_made(tmp_path, prepare):
    source = write_photos(tmp_path / 'photos', 0, 1, 2)
    whole = (source / 'p01.png').read_bytes()
    (source / 'p01.png').write_bytes(whole[:-40])
    (source / 'b.heic').write_bytes(b'?')
    cv2.imwrite(str(source / 'float.tif'), np.ones((40, 40, 3), np.float32))
    ended = prepare('--storage', 'folder')
    assert (ended.code, ended.err) == (1, '')
    lines = ended.out.splitlines()
    assert [line.split(':')[0] for line in lines[:3]] == ['photos/b.heic', 'photos/float.tif', 'photos/p01.png']
    assert lines[3] == '3 of 5 photos cannot be used; nothing was made. Take them out of the folder, or mend them'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['photos']
    (source / 'p01.png').write_bytes(whole)
    (source / 'b.heic').unlink()
    (source / 'float.tif').unlink()
    assert prepare('--storage', 'folder').code == 0


def test_mistakes_are_told_in_one_line(tmp_path, prepare):
    refused(prepare(), 'photos: no such folder')
    (tmp_path / 'photos').mkdir()
    refused(prepare(), 'photos: no photos in this folder')
    write_photos(tmp_path / 'photos', 0, 1)
    for out in ('photos', 'photos/set', '.'):
        refused(prepare(out=out), ': must lie outside the folder of the photos, and not hold it')
    refused(prepare('--val', '2'), '2 photos can be used, too few to train on some and validate on 2')
    refused(prepare('--min-size', '1000'), '0 photos can be used, too few')
    (tmp_path / 'file').touch()
    refused(prepare(out='file/set'), 'file: cannot be written (file is not a folder')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('x')
    refused(prepare(out='mine'), 'mine: is there already, and not made by this command; choose another folder')
    refused(prepare(out='file'), 'file: is there already, and not made by this command; choose another folder')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'mine', 'photos']
    for wrong in (['--val', '-1'], ['--val-fraction', '1'], ['--scales', '5'], ['--val', '1', '--val-fraction', '0.5']):
        ended = prepare(*wrong)
        assert ended.code == 2 and 'Traceback' not in ended.err


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob('*')}


def test_what_is_there_is_neither_made_again_nor_overwritten(tmp_path, prepare):
    source = write_photos(tmp_path / 'photos', 0, 1, 2)
    first = prepare()
    before = times(tmp_path / 'set')
    again = prepare()
    assert again.code == 0 and 'is there already, made from these photos' in again.out
    assert again.out.split('\n\n')[1:] == first.out.split('\n\n')[1:]  # how to train on it
    refused(prepare('--seed', '1'), 'set: was made with seed 0, not 1; choose another folder')
    refused(prepare('--scales', '2'), 'set: was made with scales [2, 3, 4], not [2]; choose another folder')
    assert times(tmp_path / 'set') == before
    write_photos(source, 3)
    refused(prepare(), 'set: was made without p03.png; choose another folder')
    (source / 'p03.png').unlink()
    os.utime(source / 'p02.png', (1, 1))
    refused(prepare(), 'set: was made before a change of p02.png; choose another folder')
    (source / 'p02.png').unlink()
    refused(prepare(), 'set: was made with the former p02.png; choose another folder')
    assert times(tmp_path / 'set') == before


# Accidents


def content(folder: Path) -> dict[str, bytes]:
    """All files but LMDBs, and what these hold."""
    found = {}
    for path in folder.rglob('*'):
        name = path.relative_to(folder).as_posix()
        if path.suffix == '.lmdb':
            store = open_store(path)
            found |= {f'{name}/{image}': store.read(image).tobytes() for image in store.names()}
        elif path.is_file() and path.parent.suffix != '.lmdb':
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prepare_data: Any) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp('undisturbed')
    write_photos(folder / 'photos', *range(5))
    for path in (folder / 'photos').iterdir():
        os.utime(path, (1, 1))
    assert prepare_data('folder', 'photos', '-o', 'set', '--min-size', '24', cwd=folder).code == 0
    return content(folder / 'set')


KILLS = [
    ('os.replace', '.set.tmp/.made_from.json.tmp'),
    ('os.replace', '.set.tmp/train/LRbicx3/.p03.png.tmp'),
    ('os.fsync', '.set.tmp/train/HR/.p01.png.tmp'),
    ('os.rename', '.set.tmp/train/.LRbicx2.lmdb.tmp'),
    ('os.rename', '.set.tmp'),
]


@pytest.mark.parametrize(('before', 'path'), KILLS)
def test_killed_at_any_moment_it_goes_on(tmp_path, prepare, undisturbed, before, path):
    write_photos(tmp_path / 'photos', *range(5))
    for image in (tmp_path / 'photos').iterdir():
        os.utime(image, (1, 1))
    killed = prepare(before=before, path=path)
    assert killed.code == -9, killed.out
    assert not (tmp_path / 'set').exists()
    done = times(tmp_path / '.set.tmp')
    ended = prepare()
    assert (ended.code, ended.err) == (0, '')
    assert content(tmp_path / 'set') == undisturbed
    assert sorted(file.name for file in tmp_path.iterdir()) == ['photos', 'set']
    if before == 'os.rename':  # all images were there: they are not written again
        now = times(tmp_path / 'set')
        assert all(now[path] == time for path, time in done.items() if path.endswith('.png'))


def test_what_was_left_by_another_run_is_cleared_away(tmp_path, prepare, undisturbed):
    write_photos(tmp_path / 'photos', *range(6))
    assert prepare('--scales', '2', before='os.rename', path='.set.tmp').code == -9
    (tmp_path / 'photos' / 'p05.png').unlink()
    for image in (tmp_path / 'photos').iterdir():
        os.utime(image, (1, 1))
    assert prepare().code == 0
    assert content(tmp_path / 'set') == undisturbed


def test_full_disk_ends_in_one_line(tmp_path, prepare, undisturbed):
    write_photos(tmp_path / 'photos', *range(5))
    for image in (tmp_path / 'photos').iterdir():
        os.utime(image, (1, 1))
    ended = prepare(file_limit=5000)
    assert ended.code == 1
    assert 'File too large' in ended.err and ended.err.count('\n') == 1
    assert not (tmp_path / 'set').exists()
    assert prepare().code == 0
    assert content(tmp_path / 'set') == undisturbed


def test_two_commands_do_not_fill_one_folder(tmp_path, prepare):
    write_photos(tmp_path / 'photos', 0, 1)
    with exclusive(tmp_path / '.set.lock', tmp_path / 'set'):
        refused(prepare(), f'process {os.getpid()} on {platform.node()} is preparing data there')
    assert prepare().code == 0


# Training on it


def printed_commands(out: str) -> list[list[str]]:
    """The command lines, as a shell reads them."""
    blocks = [block for block in out.split('\n\n') if block.startswith('python ')]
    return [shlex.split(block.replace('\\\n', ' ')) for block in blocks]


@pytest.mark.parametrize('storage', ['folder', 'raw', 'png-lmdb'])
def test_printed_command_trains(tmp_path, prepare, command_server, storage):
    name = "Ann's set: [1], x=2"
    write_photos(tmp_path / 'photos', *range(4))
    ended = prepare('--storage', storage, '--val', '1', out=name)
    assert (ended.code, ended.err) == (0, '')
    commands = printed_commands(ended.out)
    assert [command[3].rsplit('/', 1)[1] for command in commands] == [f'train_CLSD_x{scale}.yml' for scale in (2, 3, 4)]
    run = commands[1]
    assert run[:2] == ['python', str(REPO / 'basicsr_clsd' / 'train.py')]
    roots = [f'path:{key}={tmp_path}' for key in ('experiments_root', 'tb_root')]
    argv = [*run[1:], *SHRINK, *roots, '--debug']
    trained = command_server.run([{'argv': argv, 'cwd': str(tmp_path), 'env': dict(os.environ), 'accident': {}}])[0]
    assert trained.code == 0, trained.err
    metrics = (tmp_path / 'Ann_s_set_1_x_2_x3_debug' / 'metrics.jsonl').read_text()
    assert '"Ann_s_set_1_x_2_val"' in metrics


def test_printed_command_without_validation_set(tmp_path, prepare, command_server):
    write_photos(tmp_path / 'photos', 0, 1)
    ended = prepare('--storage', 'folder', '--val', '0', '--scales', '2')
    (run,) = printed_commands(ended.out)
    argv = [*run[1:], *SHRINK, f'path:experiments_root={tmp_path}', f'path:tb_root={tmp_path}', '--debug']
    trained = command_server.run([{'argv': argv, 'cwd': str(tmp_path), 'env': dict(os.environ), 'accident': {}}])[0]
    assert trained.code == 0, trained.err


def test_printed_command_is_short_in_the_repository(tmp_path, prepare_data):
    write_photos(tmp_path / 'photos', 0, 1)
    arguments = ('folder', tmp_path / 'photos', '-o', tmp_path / 'set', '--min-size', '24', '--scales', '2')
    ended = prepare_data(*arguments, cwd=REPO)
    (run,) = printed_commands(ended.out)
    assert run[1:4] == ['basicsr_clsd/train.py', '-opt', 'options/train_CLSD_x2.yml']
