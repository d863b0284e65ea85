"""Upscaling the photos of a folder, each to a file that is whole or not there."""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.photo import NAMED_AS_PHOTOS, find_photos
from basicsr_clsd.images.picture import read_header, read_picture
from basicsr_clsd.images.writer import FORMATS, check_format, write_picture
from basicsr_clsd.inference.upscaler import Upscaler
from basicsr_clsd.runtime.files import check_free, check_writable

MEGA = 1e6
# Errors that every other photo would meet as well.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
LEAST_COMPRESSED = 0.02  # of the pixels' bytes; a photo takes ten times as much


class Job(NamedTuple):
    """A photo, and the file to make of it."""

    source: Path
    target: Path


def plan(source: Path, out: Path, suffix: str, extension: str) -> list[Job]:
    """What is to be made of a photo or of all photos below a folder; no two results share a file.

    In ``out`` photos keep their sub-folders, and their names but for the suffix; where a result would share its file
    with another one, the photo's extension stays in its name. Hidden files and folders, files that are not photos, what
    is in ``out``, and results of other photos, which their suffix tells, are passed over.

    Args:
        source: Photo or folder.
        out: Folder, or for one photo a file, if it has the extension of a format that can be written.
        suffix: Between name and extension.
        extension: Of the format to write, with its dot.

    Raises:
        UserError: There is no photo, a result would take the place of a photo, or ``out`` is named like a picture that
            cannot be written.
    """
    if source.is_dir():
        if _named_as_picture(out):
            raise UserError(f'-o {out}: for the photos of a folder it must be a folder')
        jobs = _plan_folder(source, out, suffix, extension)
    elif source.exists():
        if _named_as_picture(out) and out.suffix.lower() not in FORMATS.values():
            raise UserError(f'-o {out}: the format must be one of {", ".join(FORMATS)}')
        jobs = [Job(source, out if _named_as_picture(out) else out / f'{source.stem}{suffix}{extension}')]
    else:
        raise UserError(f'{source}: no such file or folder')
    for job in jobs:
        if _exists(job.target) and job.target.resolve() == job.source.resolve():
            raise UserError(f'{job.source}: its result would take its place; choose another folder or suffix')
    check_writable(out if source.is_dir() else jobs[0].target.parent)
    return jobs


def _named_as_picture(out: Path) -> bool:
    return out.suffix.lower() in NAMED_AS_PHOTOS and not out.is_dir()


def _exists(path: Path) -> bool:
    """Whether a path is there; one with a name that is too long is not, and opening it tells why."""
    return os.path.exists(path)


def _plan_folder(source: Path, out: Path, suffix: str, extension: str) -> list[Job]:
    names = [Path(name) for name in find_photos(source)[0]]
    inside, whole = out.resolve(), source.resolve()
    if inside != whole and inside.is_relative_to(whole):
        names = [name for name in names if not (source / name).parent.resolve().is_relative_to(inside)]
    # Short and long: the photo's extension is left out, or stays.
    possible = {
        name: [out / name.parent / f'{kept}{suffix}{extension}' for kept in (name.stem, name.name)] for name in names
    }
    made_of: dict[Path, list[Path]] = {}
    for name, targets in possible.items():
        for target in targets:
            made_of.setdefault(target.absolute(), []).append(name)
    for name in names:
        other = next((each for each in made_of.get((source / name).absolute(), ()) if each != name), None)
        if other is not None:
            if not suffix:
                told = f'{source / name}: may be a photo, or the result of {source / other}'
                raise UserError(f'{told}; choose another folder or suffix')
            del possible[name]
    if not possible:
        raise UserError(f'{source}: no photos in it')
    return [Job(source / name, target) for name, target in distinct(possible).items()]


def distinct(possible: Mapping[Path, Sequence[Path]]) -> dict[Path, Path]:
    """One of two possible results for each photo, so that no two are the same: the first where that can be.

    The second ones must differ from each other.
    """
    long: set[Path] = set()
    while True:
        chosen = {name: targets[name in long] for name, targets in possible.items()}
        count = Counter(chosen.values())
        shared = {name for name, target in chosen.items() if count[target] > 1}
        if not shared - long:
            return chosen
        long |= shared


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
            OSError: The disk is full or read-only.
        """
        wanted = [job for job in jobs if overwrite or not _exists(job.target)]
        if len(wanted) < len(jobs):
            self._say(f'{len(jobs) - len(wanted)} of {len(jobs)} are there already')
        total = sum(_pixels(job.source) for job in wanted)
        task = self._bar.add_task('', total=total or None, speed='')
        with self._bar:
            for job in wanted:
                self._bar.update(task, description=_shown(job.source.name))
                try:
                    self._do(job)
                except (UserError, OSError) as error:
                    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                        raise
                    self.failures.append(_shown(_told(job, error)))

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
