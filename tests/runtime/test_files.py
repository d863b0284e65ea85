import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime import files

LONGEST_NAME = 255  # bytes, of most file systems


def test_interrupted_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / 'file'
    files.write_text('old', path)

    def write(file):
        file.write(b'half of the new')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, write)
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']
    assert path.read_text() == 'old'


def test_error_of_the_disk_names_the_file(tmp_path):
    def write(_file):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with pytest.raises(OSError, match='No space left on device') as caught:
        files.write_atomically(tmp_path / 'file', write)
    assert caught.value.filename == str(tmp_path / 'file')
    with pytest.raises(FileNotFoundError) as caught:
        files.save({}, tmp_path / 'no folder' / 'file')
    assert caught.value.filename == str(tmp_path / 'no folder' / 'file')


def test_what_a_killed_write_left_is_no_hindrance(tmp_path):
    (tmp_path / '.file.tmp').write_bytes(b'half' * 100)
    files.save({'x': torch.ones(2)}, tmp_path / 'file')
    assert torch.equal(torch.load(tmp_path / 'file', weights_only=True)['x'], torch.ones(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


@settings(deadline=None, max_examples=50)
@given(name=st.text(st.characters(exclude_characters='/\0', exclude_categories=['Cs']), min_size=1, max_size=255))
@example(name='n' * 248)
@example(name='ü' * 127)
def test_names_of_any_length_can_be_written(name):
    if name in ('.', '..') or len(name.encode()) > LONGEST_NAME:
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        files.write_text('whole', path)
        assert path.read_text(encoding='utf-8') == 'whole'
        assert len(os.fsencode(files.hidden_path(path).name)) < 128
        assert [entry.name for entry in Path(folder).iterdir()] == [name]


def test_folders_set_aside_within_a_second_are_all_kept(tmp_path):
    for content in 'abc':
        (tmp_path / 'run').mkdir()
        (tmp_path / 'run' / 'file').write_text(content)
        aside = files.set_aside(tmp_path / 'run')
        assert aside is not None and aside.name.startswith('run_archived_')
    assert sorted(path.read_text() for path in tmp_path.glob('run_archived_*/file')) == ['a', 'b', 'c']
    assert files.set_aside(tmp_path / 'run') is None


def test_folder_that_cannot_be_made_is_told_without_making_any(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file is not a folder that can be written to'):
        files.check_writable(tmp_path / 'file' / 'below')
    files.check_writable(tmp_path / 'new' / 'below')
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


def test_disk_that_is_too_small_is_told_whether_the_path_is_there_or_not(tmp_path):
    for path in (tmp_path, tmp_path / 'file', tmp_path / 'no folder' / 'file'):
        files.check_free(path, 1)
        with pytest.raises(OSError, match='needs 1099511627776 MiB and the disk has') as caught:
            files.check_free(path, 2**60)
        assert caught.value.filename == str(path)
