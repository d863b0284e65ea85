"""Which photos become which files."""

from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.writer import FORMATS
from basicsr_clsd.inference.plan import Naming, plan

CONTENT = cv2.imencode('.png', np.zeros((2, 2, 3), np.uint8))[1].tobytes()
STEMS = st.text('ab._2x ', min_size=1, max_size=5)
EXTENSIONS = st.sampled_from(['', '.png', '.jpg', '.JPG', '.jpeg', '.tif', '.webp', '.bmp', '.gif'])
FOLDERS = st.sampled_from(['', 'a/', 'b/', 'a/b/'])
NAMES = st.lists(st.tuples(FOLDERS, STEMS, EXTENSIONS).map(''.join), min_size=1, max_size=8, unique=True)
SUFFIXES = st.sampled_from(['', '_x2', '.png', 'x'])


def with_photos(folder: Path, names: list[str]) -> list[str]:
    """Photos of these names, as far as a file system takes them; the names of those that are not hidden."""
    made = []
    for name in names:
        path = folder / name
        if path == folder or '..' in path.parts or path.exists() or any(part.is_file() for part in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
        if not path.name.startswith('.'):
            made.append(path.relative_to(folder).as_posix())
    return made


@settings(deadline=None, max_examples=60)
@given(names=NAMES, suffix=SUFFIXES, extension=st.sampled_from(sorted(set(FORMATS.values()))))
def test_each_photo_has_a_result_of_its_own(names, suffix, extension):
    with TemporaryDirectory() as folder:
        photos, out = Path(folder, 'photos'), Path(folder, 'out')
        made = with_photos(photos, names)
        if not made:
            return
        jobs = plan(photos, out, Naming(suffix, extension))
        assert sorted(job.source.relative_to(photos).as_posix() for job in jobs) == sorted(made)
        assert len({job.target for job in jobs}) == len(jobs)
        for job in jobs:
            assert job.target.parent.relative_to(out) == job.source.parent.relative_to(photos)
            assert job.target.name in (f'{job.source.stem}{suffix}{extension}', f'{job.source.name}{suffix}{extension}')


@settings(deadline=None, max_examples=60)
@given(names=NAMES, suffix=SUFFIXES, extension=st.sampled_from(sorted(set(FORMATS.values()))))
def test_no_result_takes_the_place_of_a_photo_that_lies_beside_it(names, suffix, extension):
    with TemporaryDirectory() as folder:
        photos = Path(folder)
        if not with_photos(photos, names):
            return
        try:
            jobs = plan(photos, photos, Naming(suffix, extension))
        except UserError as error:
            assert str(error).startswith(str(photos))  # two may be one another's results: told, and nothing made
            return
        sources, targets = {job.source for job in jobs}, [job.target for job in jobs]
        assert len(set(targets)) == len(targets)
        assert sources.isdisjoint(targets)


def test_photos_whose_names_differ_little(tmp_path):
    with_photos(tmp_path / 'photos', ['a.png', 'a.jpg', 'a.jpg.tif', 'b.png'])
    jobs = plan(tmp_path / 'photos', tmp_path, Naming('', '.png'))
    assert {job.source.name: job.target.name for job in jobs} == {
        'a.jpg': 'a.jpg.png',
        'a.jpg.tif': 'a.jpg.tif.png',
        'a.png': 'a.png.png',
        'b.png': 'b.png',
    }


def test_results_are_not_upscaled_again_whatever_the_suffix(tmp_path):
    with_photos(tmp_path, ['a.png', 'b.png'])
    assert {job.target.name for job in plan(tmp_path, tmp_path, Naming('', '.jpg'))} == {'a.jpg', 'b.jpg'}
    (tmp_path / 'a.jpg').write_bytes(CONTENT)
    with pytest.raises(UserError, match=r'a\.jpg: may be a photo, or the result of .*a\.png'):
        plan(tmp_path, tmp_path, Naming('', '.jpg'))
    assert {job.source.name for job in plan(tmp_path, tmp_path, Naming('_x2', '.jpg'))} == {'a.jpg', 'a.png', 'b.png'}


@pytest.mark.parametrize('out', ['.', 'photos/..', 'elsewhere', 'photos/out'])
def test_results_anywhere(tmp_path, monkeypatch, out):
    """A folder that holds that of the photos takes their results too."""
    monkeypatch.chdir(tmp_path)
    with_photos(tmp_path / 'photos', ['a.png', 'sub/b.png'])
    with_photos(tmp_path / 'photos/out', ['c_x2.png'])
    found = {job.source.as_posix() for job in plan(Path('photos'), Path(out), Naming('_x2', '.png'))}
    assert found - {'photos/out/c_x2.png'} == {'photos/a.png', 'photos/sub/b.png'}
    assert ('photos/out/c_x2.png' in found) == (out != 'photos/out')


@pytest.mark.parametrize('name', ['large.gif', 'large.HEIC', 'large.jp2'])
def test_a_format_that_cannot_be_written_is_refused(tmp_path, name):
    with_photos(tmp_path, ['a.png'])
    with pytest.raises(UserError, match=f'{name}: the format must be one of png, jpg'):
        plan(tmp_path / 'a.png', tmp_path / name, Naming('_x2', '.png'))
    with pytest.raises(UserError, match='for the photos of a folder it must be a folder'):
        plan(tmp_path, tmp_path / name, Naming('_x2', '.png'))
    (tmp_path / name).mkdir()
    assert plan(tmp_path / 'a.png', tmp_path / name, Naming('_x2', '.png'))[0].target == tmp_path / name / 'a_x2.png'
