"""``prepare_data.py benchmarks`` on an archive of a few small images, with the names and folders of EDSR's."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers.file_server import serving

from basicsr_clsd.prepare import benchmark_sets

SIZES = {'Set5': [(37, 40), (48, 36)], 'Urban100': [(61, 50)]}
GRAY = ('Set5', 1)


def photo(name: str, number: int) -> np.ndarray:
    shape = (*SIZES[name][number], 3)
    image = np.random.default_rng([*name.encode(), number]).integers(0, 256, shape).astype(np.uint8)
    return image[..., 0] if (name, number) == GRAY else image


def lr_of(hr: np.ndarray, scale: int) -> np.ndarray:
    """Some image of the right size: nothing depends on its pixels but that they stay as they are."""
    return hr[: hr.shape[0] // scale, : hr.shape[1] // scale][::-1]


def members() -> dict[str, bytes]:
    """The archive's files; Urban100 has no x3."""

    def png(image: np.ndarray) -> bytes:
        return cv2.imencode('.png', image)[1].tobytes()

    files = {'benchmark/Set5/HR/Thumbs.db': b'no image'}
    for name, sizes in SIZES.items():
        for number in range(len(sizes)):
            hr = photo(name, number)
            files[f'benchmark/{name}/HR/img.{number}.png'] = png(hr)
            for scale in (2, 3, 4) if name == 'Set5' else (2, 4):
                files[f'benchmark/{name}/LR_bicubic/X{scale}/img.{number}x{scale}.png'] = png(lr_of(hr, scale))
    return files


class Place:
    """A folder with the archive, its catalogue, and what comes of them in ``datasets``."""

    def __init__(self, root: Path, prepare_data: Callable[..., Any]) -> None:
        self.root, self.prepare_data = root, prepare_data
        self.data, self.catalogue = root / 'datasets', root / 'catalogue.yml'
        self.archive = root / 'archives' / 'benchmark.tar'
        self.archive.parent.mkdir()
        self.write(members())

    def write(self, files: dict[str, bytes], **changes: Any) -> None:
        with tarfile.open(self.archive, 'w') as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        known = {
            'url': 'http://127.0.0.1:1/',
            'archive': 'benchmark.tar',
            'checksum': f'md5:{hashlib.md5(self.archive.read_bytes()).hexdigest()}',
            'images': {name: len(sizes) for name, sizes in SIZES.items()},
        }
        self.catalogue.write_text(yaml.safe_dump({**known, **changes}))

    def prepare(self, *arguments: str, archives: bool = True, **accident: Any) -> Any:
        given = ['--archives', 'archives'] if archives else []
        own = ['--catalogue', 'catalogue.yml', *given]
        return self.prepare_data('benchmarks', *own, *arguments, cwd=self.root, **accident)

    def refuse(self, reason: str) -> str:
        ended = self.prepare()
        assert ended.code == 2, (ended.out, ended.err)
        assert ended.err.startswith('error: ') and ended.err.count('\n') == 1
        assert reason in ended.err
        return ended.out

    def check(self) -> None:
        """All images are as they should be, and there is nothing else."""
        expected = {}
        for name, sizes in SIZES.items():
            for number in range(len(sizes)):
                hr = photo(name, number)
                for scale in (2, 3, 4) if name == 'Set5' else (2, 4):
                    lr = lr_of(hr, scale)
                    expected[f'{name}/LRbicx{scale}/img.{number}.png'] = lr
                    expected[f'{name}/HR/x{scale}/img.{number}.png'] = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
        found = {path.relative_to(self.data).as_posix(): path for path in self.data.rglob('*.png')}
        assert sorted(found) == sorted(expected)
        for name, image in expected.items():
            stored = cv2.imread(str(found[name]), cv2.IMREAD_UNCHANGED)
            wanted = image if image.ndim == 3 else np.stack([image] * 3, axis=2)
            np.testing.assert_array_equal(stored, wanted)
        others = {path.relative_to(self.data).as_posix() for path in self.data.rglob('*') if path.is_file()}
        assert others - set(found) <= {*(f'{name}/made_from.json' for name in SIZES), 'archives/benchmark.tar'}


@pytest.fixture
def place(tmp_path, prepare_data):
    return Place(tmp_path, prepare_data)


def test_published_archive_is_edsr_s():
    known = benchmark_sets.load_catalogue()
    assert known.remote(known.archive, known.checksum, None).url == 'https://cv.snu.ac.kr/research/EDSR/benchmark.tar'
    assert known.images == {'Set5': 5, 'Set14': 14, 'B100': 100, 'Urban100': 100}


def test_sets_get_the_layout_of_the_options_and_the_same_pixels(place):
    ended = place.prepare()
    assert (ended.code, ended.err) == (0, '')
    place.check()
    times = {path: path.stat().st_mtime_ns for path in place.data.rglob('*')}
    place.archive.unlink()
    again = place.prepare()
    assert (again.code, again.err) == (0, '')
    assert 'stays as it is' not in again.out
    assert {path: path.stat().st_mtime_ns for path in place.data.rglob('*')} == times


def test_set_that_is_there_stays_as_it_is(place):
    mine = place.data / 'Set5' / 'HR' / 'mine.png'
    mine.parent.mkdir(parents=True)
    mine.write_text('mine')
    ended = place.prepare()
    assert ended.code == 0, ended.err
    assert 'datasets/Set5 is there already and stays as it is' in ended.out
    assert [path for path in (place.data / 'Set5').rglob('*') if path.is_file()] == [mine]
    assert (place.data / 'Urban100' / 'LRbicx4' / 'img.0.png').exists()


def test_download_and_wrong_checksum(place, monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with serving() as server:
        server.files['benchmark.tar'] = place.archive.read_bytes()[:-1] + b'x'
        ended = place.prepare('--mirror', server.url, archives=False)
        assert ended.code == 1
        assert 'benchmark.tar: what came has another checksum than md5:' in ended.err
        assert not [path for path in place.data.rglob('*') if path.is_file()]
        server.files['benchmark.tar'] = place.archive.read_bytes()
        server.cut_after = [place.archive.stat().st_size // 2]
        assert place.prepare('--mirror', server.url, archives=False).code == 0
    place.check()


def test_faults_are_all_listed_and_sound_sets_are_made(place):
    files = members()
    del files['benchmark/Set5/LR_bicubic/X3/img.0x3.png']
    files['benchmark/Set5/LR_bicubic/X2/img.1x2.png'] = files['benchmark/Set5/LR_bicubic/X4/img.1x4.png']
    place.write(files)
    out = place.refuse('benchmark.tar: 2 faults, listed above')
    first, second = (line for line in out.splitlines() if 'img.' in line)
    assert 'Set5/LR_bicubic/X3/img.0x3.png: cannot be read: No such file' in first
    assert second.endswith('Set5/HR/img.1.png: 36x48 pixels do not fit the 9x12 of x2')
    assert sorted(path.name for path in place.data.iterdir() if not path.name.startswith('.')) == ['Urban100']
    place.write(members())
    assert place.prepare().code == 0


def test_wrong_number_of_images_and_missing_sets_are_told(place):
    place.write(members(), images={'Set5': 3, 'Urban100': 1, 'B100': 100})
    out = place.refuse('benchmark.tar: 3 faults')
    assert 'Set5/HR: 2 images where 3 were expected' in out
    assert 'B100/HR: 0 images where 100 were expected' in out
    assert 'B100: no folder LR_bicubic/X2, X3 or X4' in out


def test_archive_that_leads_outside_writes_nothing(place):
    place.write({**members(), '../../escaped.png': b'bad'})
    place.refuse("not safe ('../../escaped.png' would be extracted to")
    assert not list(place.root.rglob('escaped.png'))
    assert not [path for path in place.data.rglob('*') if path.is_file()]


def test_full_disk_ends_in_one_line_and_the_next_run_goes_on(place):
    ended = place.prepare(file_limit=4000)
    assert ended.code == 1
    assert 'File too large' in ended.err and ended.err.count('\n') == 1
    assert place.prepare().code == 0
    place.check()


@pytest.mark.parametrize(
    'accident',
    [
        {'half_written': '.unpacked/.benchmark.tar.DIGEST.tmp/benchmark/Urban100/HR/img.0.png'},
        {'before': 'os.replace', 'path': '.unpacked/.benchmark.tar.DIGEST.tmp'},
        {'half_written': '.Set5.tmp/LRbicx3/.img.1.png.tmp'},
        {'before': 'os.replace', 'path': '.Set5.tmp'},
        {'before': 'os.replace', 'path': '.Urban100.tmp'},
    ],
)
def test_killed_anywhere_it_goes_on(place, accident):
    digest = hashlib.md5(place.archive.read_bytes()).hexdigest()[:8]
    paths = {name: str(place.data / path.replace('DIGEST', digest)) for name, path in accident.items()}
    assert place.prepare(**{**paths, **({'before': 'os.replace'} if 'before' in paths else {})}).code == -9
    for name in SIZES:
        assert not (place.data / name).exists() or (place.data / name / 'made_from.json').exists()
    if accident.get('path', '').endswith(('.Set5.tmp', '.Urban100.tmp')):  # what was unpacked is not unpacked again
        place.archive.unlink()
    assert place.prepare().code == 0
    place.check()


def test_real_set_comes_out_as_it_is_published_in_the_other_form(place, benchmark_data):
    real = benchmark_data / 'Set5'
    files = {}
    for path in sorted((real / 'HR' / 'x2').glob('*.png')):  # sides of Set5 are even, so that these are not cropped
        files[f'benchmark/Set5/HR/{path.name}'] = path.read_bytes()
        for scale in (2, 3, 4):
            lr = real / f'LRbicx{scale}' / path.name
            files[f'benchmark/Set5/LR_bicubic/X{scale}/{path.stem}x{scale}.png'] = lr.read_bytes()
    place.write(files, images={'Set5': 5})
    assert place.prepare().code == 0
    made = {path.relative_to(place.data / 'Set5'): path for path in (place.data / 'Set5').rglob('*.png')}
    assert sorted(made) == sorted(path.relative_to(real) for path in real.rglob('*.png'))
    for name, path in made.items():
        np.testing.assert_array_equal(cv2.imread(str(path)), cv2.imread(str(real / name)))
