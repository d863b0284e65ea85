import io
import os
import resource
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.archives import unpack

FILES = {'top/a.png': b'a' * 1000, 'top/below/b.png': bytes(range(256)) * 700, 'top/empty': b''}
KINDS = ('.zip', '.tar')
Content = dict[str, bytes]


def write_zip(path: Path, files: Content, **attributes: dict[str, int]) -> Path:
    """``attributes``: the upper 16 bits of a member's attributes by its name, a Unix mode."""
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes.get('modes', {}).get(name, 0) << 16
            archive.writestr(info, content)
    return path


def write_tar(path: Path, files: Content, **changes: dict[str, dict]) -> Path:
    """``changes``: what to set in a member's header by its name."""
    with tarfile.open(path, 'w') as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.get('headers', {}).get(name, {}).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def write(path: Path, files: Content) -> Path:
    return write_zip(path, files) if path.suffix == '.zip' else write_tar(path, files)


def tree(folder: Path) -> Content:
    paths = [path for path in folder.rglob('*') if not path.is_dir()]
    assert not any(path.is_symlink() for path in paths)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def refused(archive: Path, reason: str) -> None:
    """Unpacking must fail with a line that names the archive, and write nothing, here or elsewhere."""
    folder = archive.parent / 'new' / 'out'
    before = tree(archive.parents[1])
    with pytest.raises(UserError, match=reason) as caught:
        unpack(archive, folder)
    assert str(caught.value).startswith(f'{archive}: ')
    assert len(str(caught.value).splitlines()) == 1
    assert tree(archive.parents[1]) == before
    assert not folder.exists()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with files around it that nothing may change."""
    (tmp_path / 'outside.txt').write_text('outside')
    (tmp_path / 'place').mkdir()
    return tmp_path / 'place'


@pytest.mark.parametrize('kind', KINDS)
def test_all_files_are_unpacked_with_their_bytes(place, kind):
    seen = []

    def progress(members):
        for member in members:
            seen.append(member.filename if kind == '.zip' else member.name)
            yield member

    archive = write(place / f'a{kind}', {'./top/': b'', **FILES} if kind == '.zip' else FILES)
    unpack(archive, place / 'new' / 'out', progress)
    assert tree(place / 'new') == {f'out/{name}': content for name, content in FILES.items()}
    assert seen[-3:] == list(FILES)


def test_folders_of_a_tar_and_names_with_a_dot_are_taken(place):
    headers = {name: {'type': tarfile.DIRTYPE} for name in ('.', './top', './top/below')}
    files = {**dict.fromkeys(headers, b''), **{f'./{name}': content for name, content in FILES.items()}}
    unpack(write_tar(place / 'a.tar', files, headers=headers), place / 'out')
    assert tree(place / 'out') == FILES


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_unpacked_is_not_unpacked_again(place, kind):
    archive = write(place / f'a{kind}', FILES)
    unpack(archive, place / 'out')
    (place / 'out' / 'top' / 'a.png').write_bytes(b'changed')
    unpack(archive, place / 'out')
    assert (place / 'out' / 'top' / 'a.png').read_bytes() == b'changed'


@pytest.mark.parametrize('kind', KINDS)
def test_what_a_killed_process_left_is_cleared_away(place, kind):
    left = place / '.out.tmp' / 'top'
    left.mkdir(parents=True)
    (left / 'a.png').write_bytes(b'half')
    (left / 'other.png').write_bytes(b'of another archive')
    unpack(write(place / f'a{kind}', FILES), place / 'out')
    assert tree(place / 'out') == FILES
    assert not (place / '.out.tmp').exists()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'name',
    [
        '../outside.txt',
        'top/../../../outside.txt',
        '/tmp/absolute.png',
        '//server/share.png',
        'C:/windows.png',
        '..\\outside.txt',
        'x' * 300 + '.png',
        'top/a.png/below.png',
        'new\nline.png',
    ],
)
def test_no_name_leads_out_of_the_folder(place, kind, name):
    archive = write(place / f'a{kind}', {**FILES, name: b'bad'})
    before = tree(place.parent)
    try:
        unpack(archive, place / 'out')
    except UserError as error:
        assert str(error).startswith(f'{archive}: ') and len(str(error).splitlines()) == 1
        assert not (place / 'out').exists()
    after = tree(place.parent)
    assert {path: content for path, content in after.items() if not path.startswith('place/out/')} == before
    assert not Path('/tmp/absolute.png').exists()


@pytest.mark.parametrize('kind', KINDS)
def test_names_that_lead_elsewhere_refuse_an_archive(place, kind):
    for name in ('../outside.txt', 'top/../../../outside.txt', 'top/a.png/below.png'):
        refused(write(place / f'a{kind}', {**FILES, name: b'bad'}), 'not safe')


@pytest.mark.parametrize(
    'header',
    [
        {'type': tarfile.SYMTYPE, 'linkname': '/etc'},
        {'type': tarfile.SYMTYPE, 'linkname': 'a.png'},
        {'type': tarfile.LNKTYPE, 'linkname': 'top/a.png'},
        {'type': tarfile.CHRTYPE, 'devmajor': 1, 'devminor': 3},
        {'type': tarfile.BLKTYPE},
        {'type': tarfile.FIFOTYPE},
    ],
)
def test_links_and_devices_in_a_tar_are_refused(place, header):
    refused(write_tar(place / 'a.tar', {**FILES, 'top/odd': b''}, headers={'top/odd': header}), 'not safe .*top/odd')


@pytest.mark.parametrize('kind', [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFREG])
def test_links_devices_and_modes_in_a_zip_are_not_taken_over(place, kind):
    files = {**FILES, 'top/odd': b'/etc'}
    unpack(write_zip(place / 'a.zip', files, modes={'top/odd': kind | 0o4777}), place / 'out')
    assert tree(place / 'out') == files
    assert not (place / 'out' / 'top' / 'odd').stat().st_mode & 0o7111


def test_encrypted_zips_are_refused(place):
    path = write_zip(place / 'a.zip', FILES)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b'PK\1\2')
    content[entry + 8] |= 1
    path.write_bytes(content)
    refused(path, 'is encrypted')


@pytest.mark.parametrize('kind', KINDS)
def test_truncated_archives_are_named(place, kind):
    whole = write(place / f'whole{kind}', FILES).read_bytes()
    path = place / f'a{kind}'
    for length in [0, 1, 100, 1000, 1535, 5000, len(whole) // 2, len(whole) - 20_000]:
        path.write_bytes(whole[:length])
        refused(path, 'a broken or truncated archive')


@pytest.mark.parametrize(
    ('kind', 'near', 'after', 'reason'),
    [
        pytest.param('.zip', b'aaaa', 500, 'a broken or truncated archive.* .*CRC', id='content of a zip'),
        # A tar has no sums of its contents; this must not be taken for its end.
        pytest.param('.tar', b'top/below', 1, 'a broken or truncated archive', id='header within a tar'),
    ],
)
def test_an_altered_bit_is_found(place, kind, near, after, reason):
    path = write(place / f'a{kind}', FILES)
    content = bytearray(path.read_bytes())
    content[content.index(near) + after] ^= 1
    path.write_bytes(content)
    refused(path, reason)


@pytest.mark.parametrize('kind', KINDS)
def test_declared_sizes_beyond_the_disk_are_told_before_anything_is_written(place, kind):
    path = place / f'a{kind}'
    huge = 2 * shutil.disk_usage(place).total
    if kind == '.zip':  # a bomb: sizes of 64 bits are in an extra field
        with zipfile.ZipFile(path, 'w') as archive:
            info = zipfile.ZipInfo('bomb')
            info.extra = struct.pack('<HHQ', 1, 8, huge)
            archive.writestr(info, b'')
        content = bytearray(path.read_bytes())
        entry = content.index(b'PK\1\2')
        content[entry + 24 : entry + 28] = 4 * b'\xff'
        path.write_bytes(content)
    else:  # a file with a hole
        info = tarfile.TarInfo('bomb')
        info.size = huge
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
        try:
            os.truncate(path, 512 + huge + 10240)
        except OSError:
            pytest.skip('the file system has no files of this size')
    with pytest.raises(OSError, match='needs .* MiB and the disk has'):
        unpack(path, place / 'out')
    assert [entry.name for entry in place.iterdir()] == [path.name]


def test_size_that_no_file_can_have_is_a_broken_archive(place):
    info = tarfile.TarInfo('z')
    info.size = 2**80
    (place / 'a.tar').write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(place / 'a.tar', 'a broken or truncated archive')


@pytest.mark.parametrize('kind', KINDS)
def test_full_disk_leaves_nothing_and_names_the_file(place, kind):
    archive = write(place / f'a{kind}', FILES)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r'out') as caught:
            unpack(archive, place / 'out')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(caught.value, UserError)
    assert [path.name for path in place.iterdir()] == [f'a{kind}']
    unpack(archive, place / 'out')
    assert tree(place / 'out') == FILES


def test_what_is_no_archive_is_named(place):
    refused(write(place / 'a.zip', FILES).rename(place / 'a.rar'), 'neither a .zip nor a .tar')
    refused(place / 'missing.zip', 'no such file')
    (place / 'text.zip').write_text('<html>')
    (place / 'text.tar').write_text('<html>')
    refused(place / 'text.zip', 'a broken or truncated archive')
    refused(place / 'text.tar', 'a broken or truncated archive')


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(KINDS), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4))
def test_damaged_bytes_never_end_in_another_error_or_leave_the_folder(tmp_path_factory, kind, flips):
    place = tmp_path_factory.mktemp('fuzz')
    path = write(place / f'a{kind}', FILES)
    content = bytearray(path.read_bytes()[: None if kind == '.zip' else 190_000])
    for where, change in flips:
        content[min(int(where * len(content)), len(content) - 1)] ^= change
    path.write_bytes(content)
    try:
        unpack(path, place / 'out')
    except UserError as error:
        assert str(error).startswith(str(path))
    except OSError as error:
        assert 'the disk has' in str(error)
    assert {entry.name for entry in place.iterdir()} <= {path.name, 'out'}
