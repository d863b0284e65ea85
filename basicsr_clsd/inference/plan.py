"""Which files are made of which photos."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.header import read_header
from basicsr_clsd.images.photo import NAMED_AS_PHOTOS, find_photos
from basicsr_clsd.images.writer import FORMATS
from basicsr_clsd.runtime.files import check_writable


class Job(NamedTuple):
    """A photo, the file to make of it, and which of its frames that shows."""

    source: Path
    target: Path
    frame: int = 0


class Naming(NamedTuple):
    """How results are named: the photo's name, the number of its frame if all of several are wanted, and this.

    Args:
        suffix: Between name and extension.
        extension: Of the format to write, with its dot.
        frames: All frames of a photo are wanted, and not the first alone.
    """

    suffix: str
    extension: str
    frames: bool = False

    def possible(self, source: Path) -> list[tuple[str, str]]:
        """For each wanted frame of a photo its result's name without the photo's extension, and with it."""
        header = read_header(source) if self.frames else None
        count = len(header.frames) if header is not None else 1
        digits = len(str(count))
        numbers = [f'_{number:0{digits}}' for number in range(1, count + 1)] if count > 1 else ['']
        return [
            (
                f'{source.stem}{number}{self.suffix}{self.extension}',
                f'{source.name}{number}{self.suffix}{self.extension}',
            )
            for number in numbers
        ]


def plan(source: Path, out: Path, naming: Naming) -> list[Job]:
    """What is to be made of a photo or of all photos below a folder; no two results share a file.

    In ``out`` photos keep their sub-folders, and their names but for the suffix; where a result would share its file
    with another one, the photo's extension stays in its name. Hidden files and folders, files that are not photos, what
    is in ``out``, and results of other photos, which their suffix tells, are passed over.

    Args:
        source: Photo or folder.
        out: Folder, or for one photo a file, if it has the extension of a format that can be written.
        naming: How results are named.

    Raises:
        UserError: There is no photo, two results would share a file, a result would take the place of a photo, or
            ``out`` is named like a picture that cannot be written.
    """
    if source.is_dir():
        if _named_as_picture(out):
            raise UserError(f'-o {out}: for the photos of a folder it must be a folder')
        jobs = _plan_folder(source, out, naming)
    elif source.exists():
        if _named_as_picture(out) and out.suffix.lower() not in FORMATS.values():
            raise UserError(f'-o {out}: the format must be one of {", ".join(FORMATS)}')
        names = [short for short, _ in naming.possible(source)]
        if _named_as_picture(out) and len(names) > 1:
            raise UserError(f'-o {out}: for the {len(names)} frames of a photo it must be a folder')
        targets = [out] if _named_as_picture(out) else [out / name for name in names]
        jobs = [Job(source, target, frame) for frame, target in enumerate(targets)]
    else:
        raise UserError(f'{source}: no such file or folder')
    for job in jobs:
        if is_there(job.target) and job.target.resolve() == job.source.resolve():
            raise UserError(f'{job.source}: its result would take its place; choose another folder or suffix')
    check_writable(out if source.is_dir() else jobs[0].target.parent)
    return jobs


def _named_as_picture(out: Path) -> bool:
    return out.suffix.lower() in NAMED_AS_PHOTOS and not out.is_dir()


def is_there(path: Path) -> bool:
    """Whether a path is there; one with a name that is too long is not, and opening it tells why."""
    return os.path.exists(path)


def _plan_folder(source: Path, out: Path, naming: Naming) -> list[Job]:
    names = [Path(name) for name in find_photos(source)[0]]
    inside, whole = out.resolve(), source.resolve()
    if inside != whole and inside.is_relative_to(whole):
        names = [name for name in names if not (source / name).parent.resolve().is_relative_to(inside)]
    possible: dict[Job, Job] = {}
    for name in names:
        for frame, both in enumerate(naming.possible(source / name)):
            short, long = (Job(source / name, out / name.parent / result, frame) for result in both)
            possible[short] = long
    made_of: dict[Path, list[Path]] = {}
    for job in [*possible, *possible.values()]:
        made_of.setdefault(job.target.absolute(), []).append(job.source)
    results: set[Path] = set()
    for photo in (source / name for name in names):
        other = next((each for each in made_of.get(photo.absolute(), ()) if each != photo), None)
        if other is not None and not naming.suffix:
            told = f'{photo}: may be a photo, or the result of {other}'
            raise UserError(f'{told}; choose another folder or suffix')
        if other is not None:
            results.add(photo)
    possible = {short: long for short, long in possible.items() if short.source not in results}
    if not possible:
        raise UserError(f'{source}: no photos in it')
    return distinct(possible)


def distinct(possible: Mapping[Job, Job]) -> list[Job]:
    """Of each pair of jobs one, so that no two have one target: the first where that can be.

    Raises:
        UserError: It cannot be, even with the second ones.
    """
    long: set[Job] = set()
    while True:
        chosen = {short: other if short in long else short for short, other in possible.items()}
        by_target: dict[Path, list[Job]] = {}
        for short, job in chosen.items():
            by_target.setdefault(job.target, []).append(short)
        shared = [each for each in by_target.values() if len(each) > 1]
        more = {short for each in shared for short in each} - long
        if shared and not more:
            one, other = (job.source for job in shared[0][:2])
            raise UserError(f'{one} and {other}: their results would share a file; rename one')
        if not shared:
            return list(chosen.values())
        long |= more
