"""Files below folders, and below what links lead to."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.photo import find_photos
from basicsr_clsd.prepare.layout import set_paths
from basicsr_clsd.runtime.folders import files_below

PARTS = ('', 'a', 'b', 'a/c', 'a/c/d', '../outside', '../outside/e')


@settings(deadline=None, max_examples=50)
@given(links=st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from('xyz'), st.sampled_from(PARTS)), max_size=6))
def test_each_folder_is_looked_into_once(links):
    with TemporaryDirectory() as folder:
        root = Path(folder, 'root')
        for part in PARTS:
            (root / part).mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            (root / part / 'photo.png').touch()
        for place, name, target in links:
            link = root / place / name
            if not link.exists():
                os.symlink((root / target).resolve(), link)
        found = files_below(root)
        resolved = [(root / name).resolve() for name in found]
        assert len(set(resolved)) == len(resolved)
        reached = set(resolved)
        # All that lies below by its own path is named by it.
        assert {(root / part / 'photo.png').resolve() for part in PARTS if not part.startswith('..')} <= reached
        assert {f'{part}/photo.png'.lstrip('/') for part in PARTS if not part.startswith('..')} <= set(found)
        # So is what a link below leads to.
        for place, name, target in links:
            link = root / place / name
            if not place.startswith('..') and link.resolve() == (root / target).resolve():
                assert (root / target / 'photo.png').resolve() in reached
        assert found == sorted(found)


def test_every_reader_of_folders_follows_links(tmp_path, make_images):
    images = make_images(tmp_path / 'elsewhere' / 'HR', count=2, height=8, width=8)
    root = tmp_path / 'set'
    root.mkdir()
    os.symlink(images.parent, root / 'linked')  # a folder of links alone
    os.symlink(root, images / 'back')
    names = ['linked/HR/img1.png', 'linked/HR/img2.png']
    assert files_below(root) == names
    assert FolderStore(root).names() == names
    assert find_photos(root) == (names, [])
    assert [one.hr for one in set_paths(str(root))] == [root / 'linked' / 'HR']


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / 'closed').mkdir()
    real = os.scandir

    def scandir(path):
        if Path(path).name == 'closed':  # what the superuser, too, would get from a broken disk
            raise PermissionError(13, 'Permission denied', str(path))
        return real(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    with pytest.raises(UserError, match='closed: cannot be read: Permission denied'):
        files_below(tmp_path)
