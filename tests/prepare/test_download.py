import hashlib
import socket
import time
from io import StringIO

import numpy as np
import pytest
from helpers.file_server import FileServer, serving
from rich.console import Console

from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare import download
from basicsr_clsd.prepare.download import RemoteFile, fetch, remaining

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    # A test need not wait for a server that has no need to recover.
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    with serving() as files:
        files.files['a.zip'] = CONTENT
        yield files


@pytest.fixture
def console():
    return Console(file=StringIO(), width=1000)


def remote(server: FileServer, content: bytes = CONTENT, size: int | None = len(CONTENT)) -> RemoteFile:
    return RemoteFile(f'{server.url}a.zip', f'sha256:{hashlib.sha256(content).hexdigest()}', size)


def tree(folder) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('size', [len(CONTENT), None])
@pytest.mark.parametrize('length', [True, False])
def test_whole_file_arrives_under_its_name_and_nothing_else_stays(server, console, tmp_path, size, length):
    server.length = length
    path = fetch(remote(server, size=size), tmp_path, None, console)
    assert path == tmp_path / 'a.zip'
    assert path.read_bytes() == CONTENT
    assert tree(tmp_path) == {'a.zip': len(CONTENT)}
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.zip']


def test_broken_connection_is_taken_up_where_it_broke(server, console, tmp_path):
    server.cut_after = [300_000, 0, 400_000]
    assert fetch(remote(server), tmp_path, None, console).read_bytes() == CONTENT
    starts = server.starts()
    assert len(starts) == 4
    assert starts[0] == 0
    assert 300_000 - download.CHUNK < starts[1] == starts[2] <= 300_000
    assert starts[1] + 400_000 - download.CHUNK < starts[3] <= starts[1] + 400_000


def test_given_up_download_is_continued_by_the_next_call(server, console, tmp_path):
    server.cut_after = [500_000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError) as caught:
        fetch(remote(server), tmp_path, None, console)
    assert str(caught.value).startswith(
        f'{server.url}a.zip: cannot be downloaded (the connection was cut); run the command again to go on from 4'
    )
    there = tree(tmp_path)['unfinished/a.zip.part']
    assert remaining(remote(server), tmp_path) == len(CONTENT) - there < 600_000
    assert not (tmp_path / 'a.zip').exists()
    before = len(server.requests)
    assert fetch(remote(server), tmp_path, None, console).read_bytes() == CONTENT
    assert server.starts()[before:] == [there]
    assert remaining(remote(server), tmp_path) == 0


def test_server_without_ranges_is_read_from_the_start(server, console, tmp_path):
    server.ranges = False
    server.cut_after = [300_000, 700_000]
    assert fetch(remote(server), tmp_path, None, console).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_answer_with_another_range_is_not_used(server, console, tmp_path):
    server.cut_after, server.skews = [300_000], [100]
    assert fetch(remote(server), tmp_path, None, console).read_bytes() == CONTENT
    assert [bool(start) for start in server.starts()] == [False, True, False]


def test_server_that_only_ever_sends_a_beginning_is_given_up(server, console, tmp_path):
    server.ranges = False
    server.cut_after = [300_000] * 100
    with pytest.raises(ConnectionError, match='cannot be downloaded'):
        fetch(remote(server), tmp_path, None, console)
    assert len(server.requests) == 5


@pytest.mark.parametrize('conditional', [True, False])
def test_file_that_changed_meanwhile_is_not_mixed(server, console, tmp_path, conditional):
    other = CONTENT[::-1]
    server.cut_after = [500_000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError):
        fetch(remote(server, other), tmp_path, None, console)
    server.files['a.zip'] = other
    server.etag = '"two"'
    if not conditional:  # as a server that does not know If-Range
        (tmp_path / 'unfinished' / 'a.zip.part.version').unlink()
        with pytest.raises(OSError, match='another checksum .* has been deleted; run the command again'):
            fetch(remote(server, other), tmp_path, None, console)
        assert tree(tmp_path) == {}
    assert fetch(remote(server, other), tmp_path, None, console).read_bytes() == other


def test_wrong_checksum_is_told_and_the_next_call_starts_anew(server, console, tmp_path):
    wanted = CONTENT[:-1] + b'x'
    with pytest.raises(OSError, match=r'a\.zip: what came has another checksum than sha256:') as caught:
        fetch(remote(server, wanted), tmp_path, None, console)
    assert '\n' not in str(caught.value)
    assert tree(tmp_path) == {}
    server.files['a.zip'] = wanted
    assert fetch(remote(server, wanted), tmp_path, None, console).read_bytes() == wanted
    assert server.starts() == [0, 0]


def test_md5_is_a_checksum_too(server, console, tmp_path):
    file = RemoteFile(f'{server.url}a.zip', f'md5:{hashlib.md5(CONTENT).hexdigest()}')
    assert fetch(file, tmp_path, None, console).read_bytes() == CONTENT
    server.files['a.zip'] = CONTENT[1:]
    (tmp_path / 'a.zip').unlink()
    with pytest.raises(OSError, match='another checksum than md5:'):
        fetch(file, tmp_path, None, console)


def test_what_is_complete_but_unchecked_is_not_downloaded_again(server, console, tmp_path):
    # A process that was killed while it computed the checksum leaves this.
    for size in (len(CONTENT), None):
        (tmp_path / 'unfinished').mkdir()
        (tmp_path / 'unfinished' / 'a.zip.part').write_bytes(CONTENT)
        path = fetch(remote(server, size=size), tmp_path, None, console)
        assert path.read_bytes() == CONTENT
        assert tree(tmp_path) == {'a.zip': len(CONTENT)}
        path.unlink()
    assert server.starts() == [len(CONTENT)]  # without the size, the server has to be asked whether that is all


def test_more_than_the_whole_is_started_anew(server, console, tmp_path):
    (tmp_path / 'unfinished').mkdir()
    (tmp_path / 'unfinished' / 'a.zip.part').write_bytes(CONTENT + b'more')
    assert fetch(remote(server), tmp_path, None, console).read_bytes() == CONTENT


@pytest.mark.parametrize('status', [404, 403, 410])
def test_refusal_is_told_at_once(server, console, tmp_path, status):
    server.statuses = [status]
    with pytest.raises(OSError, match=rf'a\.zip: cannot be downloaded \(the server answers {status} '):
        fetch(remote(server), tmp_path, None, console)
    assert len(server.requests) == 1


def test_busy_server_is_asked_again(server, console, tmp_path):
    server.statuses = [503, 500, 429]
    assert fetch(remote(server), tmp_path, None, console).read_bytes() == CONTENT
    server.statuses = [503] * 9
    (tmp_path / 'a.zip').unlink()
    with pytest.raises(ConnectionError, match='the server answers 503 Service Unavailable'):
        fetch(remote(server), tmp_path, None, console)


def test_pauses_get_longer_while_nothing_comes(server, console, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, 'sleep', pauses.append)
    server.cut_after = [0, 0, 200_000, 0, 0, 0, 0]
    with pytest.raises(ConnectionError):
        fetch(remote(server), tmp_path, None, console)
    assert pauses == [2, 2, 4, 8]  # none after a first failure, nor after one that brought something


def test_file_of_another_size_is_refused_before_it_is_downloaded(server, console, tmp_path):
    server.files['a.zip'] = b'<html>We have moved</html>'
    with pytest.raises(OSError, match=r'a\.zip: has 26 bytes where 1000000 were expected'):
        fetch(remote(server), tmp_path, None, console)
    assert tree(tmp_path) == {}


def test_no_server_is_told_with_its_reason(server, console, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as unused:
        url = f'http://127.0.0.1:{unused.getsockname()[1]}/a.zip'
    with pytest.raises(ConnectionError) as caught:
        fetch(RemoteFile(url, 'md5:' + 32 * '0'), tmp_path, None, console)
    reason = f'{url}: cannot be downloaded (Connection refused); run the command again to go on from 0 bytes'
    assert str(caught.value) == reason


@pytest.mark.parametrize('url', ['no url/a.zip', 'ftp://127.0.0.1/a.zip', 'http:///a.zip', '/tmp/a.zip'])
def test_what_is_no_url_is_a_mistake(server, console, tmp_path, url):
    with pytest.raises(UserError, match='not a URL that can be downloaded from'):
        fetch(RemoteFile(url, 'md5:' + 32 * '0'), tmp_path, None, console)


def test_disk_that_is_too_small_is_told_before_the_download(server, console, tmp_path, monkeypatch):
    # The server tells a size that no disk has, and would send the first bytes of it.
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**60

    server.files['a.zip'] = Huge(CONTENT)
    with pytest.raises(OSError, match=r'needs 1099511627776 MiB and the disk has'):
        fetch(remote(server, size=2**60), tmp_path, None, console)
    assert tree(tmp_path) == {}


def test_given_files_are_checked_and_left_alone(console, tmp_path):
    given, own = tmp_path / 'given', tmp_path / 'own'
    given.mkdir()
    own.mkdir()
    digest = f'sha256:{hashlib.sha256(CONTENT).hexdigest()}'
    file = RemoteFile('http://127.0.0.1:1/a.zip', digest, len(CONTENT))
    with pytest.raises(UserError, match=r'given/a\.zip: no such file'):
        fetch(file, own, given, console)
    for wrong, reason in ((CONTENT[:-1], 'has 999999 bytes where 1000000 were'), (CONTENT[::-1], 'checksum is not')):
        for folder in (given, own):
            (folder / 'a.zip').write_bytes(wrong)
            with pytest.raises(UserError, match=rf'{folder.name}/a\.zip: .*{reason}'):
                fetch(file, own, given if folder == given else None, console)
            assert (folder / 'a.zip').read_bytes() == wrong
    (given / 'a.zip').write_bytes(CONTENT)
    assert fetch(file, own, given, console) == given / 'a.zip'
    (own / 'a.zip').write_bytes(CONTENT)
    assert fetch(file, own, None, console) == own / 'a.zip'


def test_bar_is_shown_on_a_terminal_alone(server, tmp_path):
    for terminal in (True, False):
        text = StringIO()
        console = Console(file=text, force_terminal=terminal, width=200)
        fetch(remote(server), tmp_path / str(terminal), None, console)
        assert ('MB/s' in text.getvalue() or '1.0 MB' in text.getvalue()) == terminal
        assert f'Downloading {server.url}a.zip' in text.getvalue()
