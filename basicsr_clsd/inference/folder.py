"""Upscaling the photos of a folder, each to a file that is whole or not there."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.photo import find_photos
from basicsr_clsd.images.picture import read_header, read_picture
from basicsr_clsd.images.writer import FORMATS, check_format, write_picture
from basicsr_clsd.inference.upscaler import Upscaler
from basicsr_clsd.runtime.files import check_free, check_writable

MEGA = 1e6
LEAST_COMPRESSED = 0.02  # of the pixels' bytes; a photo takes ten times as much


class Job(NamedTuple):
    """A photo, and the file to make of it."""

    source: Path
    target: Path


def plan(source: Path, out: Path, suffix: str, extension: str) -> list[Job]:
    """What is to be made of a photo or of all photos below a folder.

    In ``out`` photos keep their sub-folders, and their names but for the suffix; where two differ in their extensions
    alone, these stay in the names. Hidden files and folders, files that are not photos, and what is in ``out`` or a
    result itself, are passed over.

    Args:
        source: Photo or folder.
        out: Folder, or for one photo a file, if it has the extension of a format that can be written.
        suffix: Between name and extension.
        extension: Of the format to write, with its dot.

    Raises:
        UserError: There is no photo, or a result would take the place of a photo.
    """
    if source.is_dir():
        jobs = _plan_folder(source, out, suffix, extension)
    elif source.exists():
        is_file = out.suffix.lower() in FORMATS.values() and not out.is_dir()
        jobs = [Job(source, out if is_file else out / f'{source.stem}{suffix}{extension}')]
    else:
        raise UserError(f'{source}: no such file or folder')
    for job in jobs:
        if job.target.exists() and job.target.resolve() == job.source.resolve():
            raise UserError(f'{job.source}: its result would take its place; choose another folder or suffix')
    check_writable(jobs[0].target.parent)
    return jobs


def _plan_folder(source: Path, out: Path, suffix: str, extension: str) -> list[Job]:
    names = [Path(name) for name in find_photos(source)[0]]
    if out.resolve() != source.resolve():
        names = [name for name in names if not (source / name).absolute().is_relative_to(out.absolute())]
    stems = Counter(name.with_suffix('') for name in names)
    jobs = []
    for name in names:
        stem = name.name if stems[name.with_suffix('')] > 1 else name.stem
        jobs.append(Job(source / name, out / name.parent / f'{stem}{suffix}{extension}'))
    results = {job.target.absolute() for job in jobs if job.target.absolute() != job.source.absolute()}
    jobs = [job for job in jobs if job.source.absolute() not in results]
    if not jobs:
        raise UserError(f'{source}: no photos in it')
    return jobs


class Run:
    """Does jobs one after the other, and shows how it goes on.

    Args:
        upscaler: Upscales.
        console: For the bar, on a terminal, and a line for each photo.
    """

    def __init__(self, upscaler: Upscaler, console: Console) -> None:
        self.upscaler, self.console = upscaler, console
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
            OSError: A file cannot be written.
        """
        wanted = [job for job in jobs if overwrite or not job.target.exists()]
        if len(wanted) < len(jobs):
            self._say(f'{len(jobs) - len(wanted)} of {len(jobs)} are there already')
        total = sum(_pixels(job.source) for job in wanted)
        task = self._bar.add_task('', total=total or None, speed='')
        with self._bar:
            for job in wanted:
                self._bar.update(task, description=_shown(job.source.name))
                try:
                    self._do(job)
                except UserError as error:
                    self.failures.append(_shown(str(error)))

    def _do(self, job: Job) -> None:
        picture = read_picture(job.source)
        scale, task = self.upscaler.scale, self._bar.tasks[0]
        height, width, channels = picture.pixels.shape
        size = (height * scale, width * scale, channels)
        check_format(job.target, *size, picture.pixels.dtype)
        check_free(job.target, int(picture.pixels.nbytes * scale**2 * LEAST_COMPRESSED))

        def progress(pixels: int) -> None:
            self._bar.advance(task.id, pixels)
            self._bar.update(task.id, speed=f'{(task.speed or 0) * scale**2 / MEGA:.3g} MP/s')

        strips: Iterator = self.upscaler.strips(picture.pixels, progress)
        write_picture(strips, job.target, size, picture.pixels.dtype, picture.profile)
        self._say(f'{job.source} -> {job.target} ({size[1]}x{size[0]})')

    def _say(self, text: str) -> None:
        self.console.print(_shown(text), highlight=False, markup=False)


def _pixels(path: Path) -> int:
    header = read_header(path)
    return 0 if header is None else header.height * header.width


def _shown(name: str) -> str:
    """A name that can be printed: bytes that are not UTF-8 are replaced."""
    return name.encode('utf-8', 'replace').decode()
