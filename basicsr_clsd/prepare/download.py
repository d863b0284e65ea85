"""Files from the web, as catalogues name them: a broken download goes on where it was cut off, and is checked.

requests has no downloads that go on, and pooch none either: what is asked for again, and from where, is decided here.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import IncompleteRead
from pathlib import Path
from typing import Annotated, TypeVar

import requests
from pydantic import Field, ValidationError
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from basicsr_clsd.config.load import read_yaml
from basicsr_clsd.config.section import Section
from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.files import check_free, write_text

CATALOGUES = Path(__file__).parent / 'catalogues'
UNFINISHED = 'unfinished'
CHUNK = 1 << 16  # of a cut-off answer, less than this much is lost
TIMEOUT_S = 60
PARTIAL, RANGE_BEYOND_END, REFUSED = 206, 416, 400
# Attempts in a row that brought nothing: the first and four more, after 0, 2, 4 and 8 seconds.
RETRIES = Retry(total=4, backoff_factor=1, status_forcelist={408, 425, 429, *range(500, 600)})
CUT = 'the connection was cut'

Checksum = Annotated[str, Field(pattern='^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})$')]
Report = Callable[[int, int | None], None]  # is told the bytes that are there, and those of the whole if known


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, and how to know it.

    Args:
        url: Where it is.
        checksum: ``sha256:...`` or ``md5:...``, hexadecimal.
        size: In bytes; None if it is not known.
    """

    url: str
    checksum: str
    size: int | None = None

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit('/', 1)[-1]

    def is_in(self, path: Path) -> bool:
        """Whether this file is the one at a path, by its checksum."""
        algorithm, _, wanted = self.checksum.partition(':')
        digest = hashlib.new(algorithm)
        with open(path, 'rb') as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == wanted


class Catalogue(Section):
    """Which archives a published data set is made of, and how to know that they are the right ones."""

    url: str = Field(description='folder on a server that holds the archives')

    def remote(self, name: str, checksum: str, size: int | None) -> RemoteFile:
        """An archive on that server."""
        return RemoteFile(f'{self.url.rstrip("/")}/{name}', checksum, size)


AnyCatalogue = TypeVar('AnyCatalogue', bound=Catalogue)


def read_catalogue(kind: type[AnyCatalogue], path: Path, mirror: str | None = None) -> AnyCatalogue:
    """Read a catalogue.

    Args:
        kind: What is in it.
        path: The YAML file.
        mirror: A URL to use in place of the catalogue's.

    Raises:
        UserError: The file cannot be read, or has a key that is wrong.
    """
    try:
        catalogue = kind.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        keys = '.'.join(str(key) for key in problem['loc'])
        raise UserError(f'{path}: {keys}: {problem["msg"][0].lower()}{problem["msg"][1:]}') from error
    return catalogue.model_copy(update={'url': mirror}) if mirror else catalogue


def fetch(remote: RemoteFile, folder: Path, given: Path | None, console: Console) -> Path:
    """The file, with the right checksum: from ``given``, a folder of the user's, or else in ``folder``, downloaded.

    Raises:
        UserError: It is not in ``given``, or what is there by its name is another file, which is left as it is.
        OSError: See :func:`download`.
    """
    path = (given or folder) / remote.name
    if given is None and not path.exists():
        return download(remote, folder, console)
    if not path.is_file():
        raise UserError(f'{path}: no such file')
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise UserError(f'{path}: has {size} bytes where {remote.size} were expected (cut off, or another file)')
    console.print(f'Checking {path}', highlight=False)
    if not remote.is_in(path):
        raise UserError(f'{path}: its checksum is not {remote.checksum} (damaged, or another file)')
    return path


def remaining(remote: RemoteFile, folder: Path) -> int:
    """Bytes of a file of known size that :func:`fetch` would still download."""
    if (folder / remote.name).exists() or remote.size is None:
        return 0
    return max(0, remote.size - _size(folder / UNFINISHED / f'{remote.name}.part'))


def download(remote: RemoteFile, folder: Path, console: Console) -> Path:
    """Download a file into a folder; what an earlier attempt brought is not downloaded again.

    Until it is whole and its checksum right, it is in the sub-folder ``unfinished``. One process at a time may download
    to a folder.

    Raises:
        UserError: The URL is none.
        OSError: The server does not answer, or not with this file; the disk is too small; or the checksum is wrong:
            then what came is deleted, so that the next attempt starts anew.
    """
    part = folder / UNFINISHED / f'{remote.name}.part'
    part.parent.mkdir(parents=True, exist_ok=True)
    there = f', {decimal(_size(part))} are there' if part.exists() else ''
    console.print(f'Downloading {remote.url}{there}', highlight=False)
    with _bar(remote.name, console) as report:
        transfer = _Transfer(remote, part, report)
        transfer.run()
    right = remote.is_in(part)
    if right:
        os.replace(part, folder / remote.name)
    transfer.discard()
    with suppress(OSError):  # another download is there
        part.parent.rmdir()
    if not right:
        raise OSError(
            f'{remote.url}: what came has another checksum than {remote.checksum} and has been deleted; '
            'run the command again to download it anew'
        )
    return folder / remote.name


@contextmanager
def _bar(name: str, console: Console) -> Iterator[Report]:
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task('', total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Transfer:
    """Brings a file into ``part``; what is there already is not asked for again.

    A server that knows no ranges, or whose file has changed since, is read from the start. A connection that breaks is
    taken up again, and given up as :data:`RETRIES` says.
    """

    def __init__(self, remote: RemoteFile, part: Path, report: Report) -> None:
        self.url, self.size = remote.url, remote.size
        self.part, self.report = part, report
        self._version = part.with_name(f'{part.name}.version')  # what the server calls the version that is in `part`

    def run(self) -> None:
        retries = RETRIES
        while self.size is None or _size(self.part) != self.size:
            before = _size(self.part)
            try:
                if self._request_rest(before):
                    return
                raise requests.ConnectionError(CUT)
            except WRONG_URL as error:
                raise UserError(f'{self.url}: not a URL that can be downloaded from') from error
            except requests.RequestException as error:
                try:
                    retries = (RETRIES if _size(self.part) > before else retries).increment(error=error)
                except MaxRetryError:
                    raise ConnectionError(
                        f'{self.url}: cannot be downloaded ({_innermost(error)}); run the command again to go on from '
                        f'{decimal(_size(self.part))}'
                    ) from error
            retries.sleep()

    def discard(self) -> None:
        """Delete what is there."""
        self.part.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def _request_rest(self, start: int) -> bool:
        """Ask for what lies behind ``start``, and keep what comes; whether all of it is there now."""
        headers = {'Accept-Encoding': 'identity'}  # ranges are of the file as it is, not of a compressed form
        if start:
            headers['Range'] = f'bytes={start}-'
            if self._version.exists():
                headers['If-Range'] = self._version.read_text(encoding='utf-8')
        with requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code >= REFUSED and answer.status_code != RANGE_BEYOND_END:
                status = f'the server answers {answer.status_code} {answer.reason}'.strip()
                if RETRIES.is_retry('GET', answer.status_code):
                    raise requests.HTTPError(status)
                raise OSError(f'{self.url}: cannot be downloaded ({status})')
            begin, total = _range(answer)
            if None not in (self.size, total) and total != self.size:
                raise OSError(f'{self.url}: has {total} bytes where {self.size} were expected; another file?')
            if answer.status_code == RANGE_BEYOND_END and total == start:
                return True
            if answer.status_code == RANGE_BEYOND_END or begin not in (0, start):
                self.discard()
                raise requests.HTTPError('the server has another version')
            if total is not None:
                check_free(self.part.parent, total - begin)
            self._receive(answer, begin, total)
        return total is None or _size(self.part) == total

    def _receive(self, answer: requests.Response, begin: int, total: int | None) -> None:
        with open(self.part, 'r+b' if begin else 'wb') as file:
            file.seek(begin)
            if not begin:
                self._note_version(answer)
            try:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    self.report(file.tell(), total)
                file.flush()
                os.fsync(file.fileno())
            except requests.RequestException:
                raise
            except OSError as error:  # of the disk; it does not name the file
                raise OSError(error.errno, error.strerror, str(self.part)) from error

    def _note_version(self, answer: requests.Response) -> None:
        etag = answer.headers.get('ETag', '')
        version = answer.headers.get('Last-Modified') if etag.startswith('W/') or not etag else etag
        if version:
            write_text(version, self._version)
        else:
            self._version.unlink(missing_ok=True)


WRONG_URL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.TooManyRedirects,
)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _range(answer: requests.Response) -> tuple[int, int | None]:
    """First byte of an answer, and the size of the whole file if the server tells it; -1: not what was asked for."""
    if answer.status_code not in (PARTIAL, RANGE_BEYOND_END):
        length = answer.headers.get('Content-Length', '')
        return 0, int(length) if length.isdecimal() else None
    match = re.fullmatch(r'bytes (?:(\d+)-\d+|\*)/(\d+|\*)', answer.headers.get('Content-Range', '').strip())
    if match is None:
        return -1, None
    begin, total = match.groups()
    return int(begin or -1), int(total) if total != '*' else None


def _innermost(error: BaseException) -> str:
    """What lies under the layers of the HTTP libraries, as in 'Connection refused'."""
    while below := error.__cause__ or error.__context__:
        error = below
    if isinstance(error, IncompleteRead):
        return CUT
    return str(getattr(error, 'strerror', None) or error or type(error).__name__).strip()
