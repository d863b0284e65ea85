"""Everything that is wrong with data sets, in one list."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from basicsr_clsd.data.stores import ImageStore, open_store
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import stem
from basicsr_clsd.prepare.checks.images import KINDS, LrImages, Problem, examine_pair, lr_images, read_examined
from basicsr_clsd.prepare.checks.near_duplicates import Described, describe, near_duplicates
from basicsr_clsd.prepare.layout import SetPaths, scale_of, set_paths
from basicsr_clsd.prepare.workspace import bar
from basicsr_clsd.runtime.threads import in_threads


class Seen(NamedTuple):
    """An HR image that could be read."""

    path: str
    digest: bytes  # of the pixels
    described: Described | None


class Report(NamedTuple):
    """What a check found.

    Args:
        images: How many images were looked at.
        problems: Everything that is wrong.
    """

    images: int
    problems: list[Problem]

    def as_json(self) -> dict[str, object]:
        """The report as plain values."""
        return {'images': self.images, 'problems': [problem._asdict() for problem in self.problems]}

    def summary(self) -> str:
        """One line on all of it."""
        counts = Counter(problem.kind for problem in self.problems)
        told = ', '.join(f'{counts[kind]} {kind}' for kind in KINDS if counts[kind])
        return f'{self.images} images looked at: {told or "nothing is wrong"}'


def check_sets(
    paths: Sequence[str],
    against: Sequence[str] = (),
    *,
    scale: int | None = None,
    patch: int | None = None,
    console: Console,
) -> Report:
    """Check data sets, all of their images.

    An image that cannot be decoded; pairs of which one is missing, or whose sizes do not fit; HR names that differ in
    the extension alone; images that are not stored as 8-bit RGB; HR images too small for the patch; LR images that are
    not MATLAB's bicubic of HR, and what they look made by; images with the same pixels; and images of different sets
    that show the same (see :mod:`~basicsr_clsd.prepare.checks.near_duplicates`), as it must not be between training and
    test.

    Args:
        paths: Sets; see :func:`~basicsr_clsd.prepare.layout.set_paths`.
        against: Further sets that the images of ``paths`` must not be in; nothing else is checked of them.
        scale: Check LR images of this scale alone; it need not be told where names or sizes do.
        patch: Side of the HR patches that are to be cut.
        console: For progress.

    Raises:
        UserError: A path is not there.
    """
    sets, others = _merged(paths), _merged(against)
    several = len({one.collection for one in [*sets, *others]}) > 1
    problems: list[Problem] = []
    seen: dict[Path, dict[str, Seen]] = defaultdict(dict)
    images = 0
    for one in sets:
        count, found, wrong = _check_set(one, scale, patch, several, console)
        images += count
        problems += wrong
        for name, image in found.items():
            seen[one.collection].setdefault(name, image)
    foreign: dict[Path, dict[str, Seen]] = defaultdict(dict)
    for one in others:
        count, found, wrong = _check_set(SetPaths(one.hr), None, None, several, console)
        images += count
        problems += [problem for problem in wrong if problem.kind == 'unreadable']
        for name, image in found.items():
            foreign[one.collection].setdefault(name, image)
    pairs = list(combinations(seen, 2))
    problems += [problem for a, b in pairs for problem in _compare(seen[a], seen[b], console)]
    problems += [problem for a in seen for b in foreign if a != b for problem in _compare(seen[a], foreign[b], console)]
    return Report(images, sorted(problems, key=lambda problem: KINDS.index(problem.kind)))


def _merged(texts: Sequence[str]) -> list[SetPaths]:
    """The sets of all texts, each HR folder once, with all of its LR folders."""
    lrs: dict[Path, dict[Path, None]] = {}
    for text in texts:
        for one in set_paths(text):
            lrs.setdefault(one.hr, {}).update(dict.fromkeys(one.lrs))
    return [SetPaths(hr, tuple(paths)) for hr, paths in lrs.items()]


def _check_set(
    paths: SetPaths, scale: int | None, patch: int | None, described: bool, console: Console
) -> tuple[int, dict[str, Seen], list[Problem]]:
    """Number of images, the HR images by name without extension, and what is wrong."""
    problems: list[Problem] = []
    hr = _opened(paths.hr, problems)
    if hr is None:
        return 0, {}, problems
    names = hr.names()
    problems += _equal_stems(hr, names)
    lrs: list[LrImages] = []
    for path in paths.lrs:
        if scale is None or scale_of(path) in (None, scale):
            lr = _opened(path, problems)
            if lr is not None:
                lrs.append(lr_images(hr, lr, scale))
                problems += lrs[-1].problems

    def look(name: str) -> tuple[Seen | None, list[Problem]]:
        image, wrong = read_examined(hr, name)
        if image is None:
            for lr in lrs:
                if name in lr.pairs:
                    wrong += read_examined(lr.store, lr.pairs[name])[1]
            return None, wrong
        where = str(hr.root / name)
        height, width = image.shape[:2]
        if patch is not None and min(height, width) < patch:
            wrong.append(Problem('small', where, f'{width}x{height} pixels are too few for patches of {patch}'))
        for lr in lrs:
            wrong += examine_pair(image, lr, name)
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        return Seen(where, digest, describe(image, lambda: hr.read(name)) if described else None), wrong

    found: dict[str, Seen] = {}
    first: dict[bytes, str] = {}
    for name, (image, wrong) in zip(names, in_threads(look, names, bar(console, f'Checking {paths.hr}')), strict=True):
        problems += wrong
        if image is not None:
            found[stem(name)] = image
            other = first.setdefault(image.digest, image.path)
            if other != image.path:
                problems.append(Problem('duplicate', image.path, f'has the pixels of {other}'))
    alone = [(lr, name) for lr in lrs for name in set(lr.store.names()) - set(lr.pairs.values())]
    for lr, name in sorted(alone, key=lambda item: item[1]):
        problems += read_examined(lr.store, name)[1]
    return len(names) + sum(len(lr.store.names()) for lr in lrs), found, problems


def _opened(root: Path, problems: list[Problem]) -> ImageStore | None:
    try:
        store = open_store(root)
    except UserError as error:
        problems.append(Problem('unreadable', str(root), str(error).removeprefix(f'{root}: ')))
        return None
    if store.names():
        return store
    problems.append(Problem('unreadable', str(root), 'no images in this folder'))
    return None


def _equal_stems(store: ImageStore, names: Sequence[str]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(stem(name), name)
        if other != name:
            yield Problem('name', str(store.root / name), f'differs from {other} in the extension alone')


def _compare(first: dict[str, Seen], second: dict[str, Seen], console: Console) -> Iterator[Problem]:
    """Images that are in both sets, or show the same."""
    by_digest = {image.digest: image for image in second.values()}
    equal = set()
    for image in first.values():
        other = by_digest.get(image.digest)
        if other is not None:
            equal.add((image.path, other.path))
            yield Problem('duplicate', image.path, f'has the pixels of {other.path}')
    ours, theirs = list(first.values()), list(second.values())
    described = ([image.described for image in images if image.described] for images in (ours, theirs))
    for i, j, alike in near_duplicates(*described, progress=bar(console, 'Comparing sets')):
        if (ours[i].path, theirs[j].path) not in equal:
            yield Problem('near-duplicate', ours[i].path, f'shows the same as {theirs[j].path} ({alike})')
