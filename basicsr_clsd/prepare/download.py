"""Files from the web: a broken download goes on where it was cut off, and counts once its checksum is right."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, cast

import pooch
import requests
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.files import check_free, write_text

CHUNK = 1 << 16  # of a cut-off answer, less than this much is lost
TIMEOUT_S = 60
OK, PARTIAL, RANGE_BEYOND_END, SERVER_ERROR = 200, 206, 416, 500
TEMPORARY_ANSWERS = (408, 425, 429)  # timeout, too early, too many requests
CUT = 'the connection was cut'
UNFINISHED = 'unfinished'


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
    algorithm, _, digest = remote.checksum.partition(':')
    if pooch.file_hash(str(path), alg=algorithm) != digest:
        raise UserError(f'{path}: its checksum is not {remote.checksum} (damaged, or another file)')
    return path


def remaining(remote: RemoteFile, folder: Path) -> int:
    """Bytes of a file of known size that :func:`fetch` would still download."""
    if (folder / remote.name).exists() or remote.size is None:
        return 0
    part = folder / UNFINISHED / f'{remote.name}.part'
    return max(0, remote.size - (part.stat().st_size if part.exists() else 0))


def download(remote: RemoteFile, folder: Path, console: Console) -> Path:
    """Download a file into a folder; what an earlier attempt brought is not downloaded again.

    Until it is whole and its checksum right, it is in the sub-folder ``unfinished``. One process at a time may download
    to a folder.

    Raises:
        UserError: The URL is none.
        OSError: The server does not answer, or not with this file; the disk is too small; or the checksum is wrong:
            then what came is deleted, so that the next attempt starts anew.
    """
    unfinished = folder.absolute() / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    for left in unfinished.glob('tmp*'):  # of pooch, from a process that was killed
        left.unlink()
    with _bar(remote.name, console) as report:
        downloader = ResumingDownloader(unfinished / f'{remote.name}.part', remote.size, report)
        there = f', {decimal(downloader.done())} are there' if downloader.done() else ''
        console.print(f'Downloading {remote.url}{there}', highlight=False)
        pooch.get_logger().setLevel(logging.WARNING)
        try:
            # Cast: pooch's type of a downloader names the arguments as that of a processor.
            pooch.retrieve(remote.url, remote.checksum, remote.name, unfinished, downloader=cast(Any, downloader))
        except ValueError as error:  # so pooch tells a wrong checksum
            downloader.discard()
            raise OSError(
                f'{remote.url}: what came has another checksum than {remote.checksum} and has been deleted; '
                'run the command again to download it anew'
            ) from error
    downloader.discard()
    os.replace(unfinished / remote.name, folder / remote.name)
    with suppress(OSError):  # another download is there
        unfinished.rmdir()
    return folder / remote.name


@contextmanager
def _bar(name: str, console: Console) -> Iterator[Callable[[int, int | None], None]]:
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task('', total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class ResumingDownloader:
    """A downloader for pooch that keeps what has come in ``part`` and asks a server only for the rest.

    A server that knows no ranges, or whose file has changed since, is read from the start. A connection that breaks is
    taken up again, and given up after ``attempts`` in a row that brought nothing.

    Args:
        part: File to download into.
        size: The size of the whole in bytes, if it is known.
        report: Called with the bytes that are there and, as far as it is known, the size of the whole.
        attempts: See above.
        pause: Seconds before the next attempt; twice as many with each one that brought nothing.
    """

    def __init__(
        self,
        part: Path,
        size: int | None,
        report: Callable[[int, int | None], None] = lambda done, total: None,
        *,
        attempts: int = 5,
        pause: float = 1.0,
    ) -> None:
        self.part, self.size, self.report = part, size, report
        self.attempts, self.pause = attempts, pause
        self._version = part.with_name(f'{part.name}.version')  # what the server calls the version that is in `part`

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download ``url`` to ``output_file``; pooch calls this.

        Raises:
            UserError: It is no URL that can be downloaded from.
            OSError: The server does not answer, or not with this file; the disk is too small.
        """
        failures = 0
        while self.size is None or self.done() != self.size:
            before = self.done()
            try:
                if self._request_rest(url, before):
                    break
                reason = CUT
            except WRONG_URL as error:
                raise UserError(f'{url}: not a URL that can be downloaded from') from error
            except (requests.RequestException, _AskAgainError) as error:
                reason = _innermost(error)
            failures = 1 if self.done() > before else failures + 1
            if failures == self.attempts:
                raise ConnectionError(
                    f'{url}: cannot be downloaded ({reason}); run the command again to go on from '
                    f'{decimal(self.done())}'
                )
            time.sleep(self.pause * 2 ** (failures - 1))
        # pooch deletes its file when it is interrupted while it computes the checksum: it gets a link.
        os.unlink(output_file)
        try:
            os.link(self.part, output_file)
        except OSError:  # a disk without links
            os.replace(self.part, output_file)

    def done(self) -> int:
        """Bytes that are there."""
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        """Delete what is there."""
        self.part.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def _request_rest(self, url: str, start: int) -> bool:
        """Ask for everything from byte ``start`` on; return whether it has come to the end."""
        headers = {'Accept-Encoding': 'identity'}  # ranges are of the file as it is, not of a compressed form
        if start:
            headers['Range'] = f'bytes={start}-'
            if self._version.exists():
                headers['If-Range'] = self._version.read_text(encoding='utf-8')
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code in TEMPORARY_ANSWERS or answer.status_code >= SERVER_ERROR:
                raise _AskAgainError(_status(answer))
            if answer.status_code not in (OK, PARTIAL, RANGE_BEYOND_END):
                raise OSError(f'{url}: cannot be downloaded ({_status(answer)})')
            begin, total = _range(answer)
            if self.size is not None and total is not None and total != self.size:
                raise OSError(f'{url}: has {total} bytes where {self.size} were expected; another file?')
            if answer.status_code == RANGE_BEYOND_END and total == start:
                return True
            if answer.status_code == RANGE_BEYOND_END or begin not in (0, start):
                self.discard()
                raise _AskAgainError('the server has another version')
            if total is not None:
                check_free(self.part.parent, total - begin)
            self._receive(answer, begin, total)
        return total is None or self.done() == total

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


class _AskAgainError(Exception):
    """An answer that may be another one the next time."""


WRONG_URL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.TooManyRedirects,
)


def _status(answer: requests.Response) -> str:
    return f'the server answers {answer.status_code} {answer.reason}'.strip()


def _range(answer: requests.Response) -> tuple[int, int | None]:
    """First byte of an answer, and the size of the whole file if the server tells it."""
    if answer.status_code == OK:
        length = answer.headers.get('Content-Length', '')
        return 0, int(length) if length.isdecimal() else None
    match = re.fullmatch(r'bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)', answer.headers.get('Content-Range', '').strip())
    if match is None:
        return -1, None
    begin, end, total = match.groups()
    known = int(total) if total != '*' else int(end) + 1 if end else None
    return int(begin or -1), known


def _innermost(error: BaseException) -> str:
    """What lies under the layers of the HTTP libraries, as in 'Connection refused'."""
    while below := error.__cause__ or error.__context__:
        error = below
    if isinstance(error, IncompleteRead):
        return CUT
    return str(getattr(error, 'strerror', None) or error or type(error).__name__).strip()
