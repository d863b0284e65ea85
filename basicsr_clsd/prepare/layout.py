"""Where the HR and LR images of a data set are, from a path and the usual names of folders."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from basicsr_clsd.config.paths import located
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import stem

DEPTH = 3  # of folders below a path that are searched for sets
HR = re.compile(r'(?P<prefix>(.*_)?)HR(?P<end>_sub)?(?P<lmdb>\.lmdb)?')
SCALED = re.compile(r'(?:.*[^A-Za-z0-9])?(?:LR(?:bic)?)?[xX](?P<scale>[1-9]\d?)(?:_sub)?(?:\.lmdb)?')
SUFFIXES = ('', 'x{}', '_x{}', 'X{}')


class SetPaths(NamedTuple):
    """Folders or LMDBs: one of HR images, and any number of LR images of them."""

    hr: Path
    lrs: tuple[Path, ...] = ()

    @property
    def collection(self) -> Path:
        """The same for all forms of the same images: ``HR``, ``HR.lmdb``, ``HR_sub``; ``HR/x2``, ``HR/x3``."""
        path = Path(os.path.abspath(self.hr))
        path = path.parent if scale_of(path) and HR.fullmatch(path.parent.name) else path
        return path.with_name(re.sub(r'(_sub)?(\.lmdb)?$', '', path.name) or path.name)


def given_paths(text: str) -> SetPaths:
    """``HR``, ``HR:LR`` or ``HR:LR:LR``..., each a folder of images or an LMDB.

    Raises:
        UserError: There is no such folder.
    """
    whole = located(text)
    roots = [whole] if whole.is_dir() else [located(part) for part in text.split(':')]
    for root in roots:
        if not root.is_dir():
            raise UserError(f'{root}: no such folder')
    return SetPaths(roots[0], tuple(roots[1:]))


def set_paths(text: str) -> list[SetPaths]:
    """What a path of the command line means: what :func:`given_paths` takes, or a folder of sets.

    A folder that holds others by the usual names stands for all of the sets in it: ``HR`` beside ``LR``, ``LRbicx2`` or
    ``LR_bicubic/X2``; ``HR/x2`` beside ``LRbicx2``; ``DIV2K_train_HR`` beside ``DIV2K_train_LR_bicubic/X2``;
    ``train/HR`` and ``val/HR``; each also with ``.lmdb`` or ``_sub`` at the end.

    Raises:
        UserError: There is no such folder.
    """
    given = given_paths(text)
    found = [] if given.lrs else _sets_in(given.hr, DEPTH)
    return found or [given]


def _sets_in(folder: Path, depth: int) -> list[SetPaths]:
    if folder.suffix == '.lmdb' or not depth:
        return []
    inside = _folders(folder)
    found = []
    for path in inside:
        match = HR.fullmatch(path.name)
        if match:
            found += _with_lrs(path, match, inside)
    return found or [paths for path in inside for paths in _sets_in(path, depth - 1)]


def _with_lrs(hr: Path, match: re.Match[str], beside: list[Path]) -> list[SetPaths]:
    """The sets of an HR folder: one, or one of each scale that it has a folder of."""
    lrs = []
    for path in beside:
        if path.name.startswith(f'{match["prefix"]}LR'):
            lrs += [path] if scale_of(path) else [inner for inner in _folders(path) if scale_of(inner)] or [path]
    end = f'{match["end"] or ""}{match["lmdb"] or ""}'
    lrs = [path for path in lrs if _end(path) == end]
    scaled = [path for path in _folders(hr) if scale_of(path)] if hr.suffix != '.lmdb' else []
    if not scaled:
        return [SetPaths(hr, tuple(lrs))]
    return [SetPaths(path, tuple(lr for lr in lrs if scale_of(lr) == scale_of(path))) for path in scaled]


def _end(path: Path) -> str:
    return ''.join(re.findall(r'_sub(?=$|\.)|\.lmdb$', path.name))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))


def scale_of(path: Path) -> int | None:
    """The scale that a folder's name tells: ``X2``, ``x4``, ``LRbicx3``, ``X2_sub.lmdb``."""
    match = SCALED.fullmatch(path.name)
    return int(match['scale']) if match else None


def paired_names(hr_names: Iterable[str], lr_names: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Pair images by their names without extensions: equal, or LR's with ``x2``, ``x3``, ... after HR's.

    Returns:
        The LR name for each HR name that has one; the HR names that have none; the LR names that have none.
    """
    hr_names = list(hr_names)
    by_stem = {stem(name): name for name in lr_names}
    endings = dict.fromkeys(suffix.format(scale) for suffix in SUFFIXES for scale in (2, 3, 4, 8))

    def pairs(ending: str) -> dict[str, str]:
        return {name: by_stem[stem(name) + ending] for name in hr_names if stem(name) + ending in by_stem}

    best = max((pairs(ending) for ending in endings), key=len)
    partners = set(best.values())
    return best, [name for name in hr_names if name not in best], [n for n in by_stem.values() if n not in partners]
