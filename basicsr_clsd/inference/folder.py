"""Upscaling the photos of a folder, each to a file that is whole or not there."""

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.header import read_header
from basicsr_clsd.images.photo import read_picture
from basicsr_clsd.images.writer import check_format, not_held, write_picture
from basicsr_clsd.inference.plan import Job, is_there
from basicsr_clsd.inference.upscaler import Upscaler
from basicsr_clsd.runtime.files import check_free
from basicsr_clsd.runtime.threads import hand_over

MEGA = 1e6
# Errors that every other photo would meet as well.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
LEAST_COMPRESSED = 0.02  # of the pixels' bytes; a photo takes ten times as much


class Run:
    """Does jobs one after the other, and shows how it goes on.

    Args:
        upscaler: Upscales.
        console: For the bar, on a terminal, and a line for each photo.
        frames: All frames of each photo are made, so that the first need not be told as one of several.
        strip: Leave EXIF data and dots per inch out.
    """

    def __init__(self, upscaler: Upscaler, console: Console, frames: bool = False, strip: bool = False) -> None:
        self.upscaler, self.console, self.frames, self.strip = upscaler, console, frames, strip
        self.failures: list[str] = []
        self._bar = Progress(
            BarColumn(bar_width=20),
            TextColumn('{task.percentage:.0f}% {task.fields[speed]}', table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            TextColumn('{task.description}', markup=False),
            console=console,
            disable=not console.is_terminal,
        )

    def run(self, jobs: Sequence[Job], overwrite: bool) -> None:
        """Make every file that is not there yet; photos that cannot be upscaled are left for ``failures``.

        Args:
            jobs: What to do.
            overwrite: Make files that are there anew.

        Raises:
            OSError: The disk is full or read-only.
        """
        wanted = [job for job in jobs if overwrite or not is_there(job.target)]
        if len(wanted) < len(jobs):
            self._say(f'{len(jobs) - len(wanted)} of {len(jobs)} are there already')
        total = sum(_pixels(job.source) for job in wanted)
        task = self._bar.add_task('', total=total or None, speed='')
        with self._bar, ThreadPoolExecutor(1) as writer:
            earlier: tuple[Job, Future[str]] | None = None  # may not be written yet, while the next is upscaled
            for job in wanted:
                self._bar.update(task, description=_shown(job.source.name))
                begun: Future[str] = Future()
                try:
                    begun = self._begin(job, writer)
                except (UserError, OSError) as error:
                    begun.set_exception(error)
                if earlier is not None:
                    self._end(*earlier)
                earlier = job, begun
            if earlier is not None:
                self._end(*earlier)

    def _end(self, job: Job, begun: Future[str]) -> None:
        """Wait for a photo's file, and tell what has become of it."""
        try:
            self._say(begun.result())
        except (UserError, OSError) as error:
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise
            self.failures.append(_shown(_told(job, error)))

    def _begin(self, job: Job, writer: ThreadPoolExecutor) -> Future[str]:
        """Upscale a photo; ``writer`` encodes what there is of it, and has the line to tell when the file is whole."""
        picture = read_picture(job.source, job.frame)
        metadata = picture.metadata.stripped() if self.strip else picture.metadata
        scale, task = self.upscaler.scale, self._bar.tasks[0]
        height, width, channels = picture.pixels.shape
        size = (height * scale, width * scale, channels)
        check_format(job.target, *size, picture.pixels.dtype)
        check_free(job.target, int(picture.pixels.nbytes * scale**2 * LEAST_COMPRESSED))

        def progress(pixels: int) -> None:
            self._bar.advance(task.id, pixels)
            self._bar.update(task.id, speed=f'{(task.speed or 0) * scale**2 / MEGA:.3g} MP/s')

        notes = [f'{size[1]}x{size[0]}']
        if picture.frames > 1:
            which = f'frame {job.frame + 1} of {picture.frames}'
            notes.append(which if self.frames else f'first of {picture.frames} frames; --frames for all')
        if lost := not_held(job.target, metadata):
            notes.append(f'without {" and ".join(lost)}, which {job.target.suffix[1:]} cannot hold')

        def write(strips: Iterator[NDArray[Any]]) -> str:
            write_picture(strips, job.target, size, picture.pixels.dtype, metadata)
            return f'{job.source} -> {job.target} ({", ".join(notes)})'

        return hand_over(self.upscaler.strips(picture.pixels, progress), write, writer)

    def _say(self, text: str) -> None:
        self.console.print(_shown(text), highlight=False, markup=False)


def _told(job: Job, error: UserError | OSError) -> str:
    """What went wrong with a photo, in a line that names it."""
    if isinstance(error, OSError) and error.strerror:
        return f'{job.source}: {error.strerror} ({error.filename or job.target})'
    text = str(error)
    return text if str(job.source) in text or str(job.target) in text else f'{job.source}: {text}'


def _pixels(path: Path) -> int:
    header = read_header(path)
    return 0 if header is None else header.height * header.width


def _shown(name: str) -> str:
    """A name that can be printed: bytes that are not UTF-8 are replaced."""
    return name.encode('utf-8', 'replace').decode()
