"""An HTTP server on loopback whose answers go wrong on demand."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """Serves ``files`` (by name) and notes the ``requests`` (name, headers) that it gets.

    Attributes:
        url: Where.
        cut_after: Close the connection after so many bytes of an answer's body, for as many answers as there are
            numbers; None: this one is whole.
        ranges: Whether it answers requests for a range.
        skews: For as many of these as there are numbers, begin so many bytes after what was asked for, and say so.
        etag: What it calls the version of its files.
        statuses: Answer with these codes, one after the other, before it serves anything.
        length: Whether it tells the length.
    """

    def __init__(self, port: int) -> None:
        self.url = f'http://127.0.0.1:{port}/'
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.cut_after: list[int | None] = []
        self.ranges = True
        self.skews: list[int] = []
        self.etag = '"one"'
        self.statuses: list[int] = []
        self.length = True

    def starts(self) -> list[int]:
        """First byte that each request asked for."""
        ranges = [headers.get('Range', 'bytes=0-') for _, headers in self.requests]
        return [int(text.removeprefix('bytes=').removesuffix('-')) for text in ranges]


class _Handler(BaseHTTPRequestHandler):
    files: FileServer

    def do_GET(self) -> None:
        server, name = self.files, self.path.removeprefix('/')
        server.requests.append((name, dict(self.headers)))
        content = server.files.get(name)
        status = server.statuses.pop(0) if server.statuses else 200 if content is not None else 404
        if status != 200 or content is None:
            self.send_error(status)
            return
        wanted = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        same = self.headers.get('If-Range') in (None, server.etag)
        start = int(wanted[1]) if wanted and server.ranges and same else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(content)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        start += server.skews.pop(0) if start and server.skews else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        if server.length:
            self.send_header('Content-Length', str(len(content) - start))
        if server.etag:
            self.send_header('ETag', server.etag)
        self.end_headers()
        cut = server.cut_after.pop(0) if server.cut_after else None
        self.wfile.write(content[start : len(content) if cut is None else start + cut])
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server, as long as the context lasts."""
    with ThreadingHTTPServer(('127.0.0.1', 0), _Handler) as http:
        files = FileServer(http.server_address[1])
        http.RequestHandlerClass = type('Handler', (_Handler,), {'files': files})
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield files
        finally:
            http.shutdown()
            thread.join()
