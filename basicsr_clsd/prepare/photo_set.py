"""One's own photos made into a set to train on: HR and LR images, a part of them to validate on."""

import hashlib
import json
import math
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console

from basicsr_clsd.config.load import parse_yaml
from basicsr_clsd.config.paths import checkout
from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.images.photo import find_photos, read_photo
from basicsr_clsd.prepare.lmdb_build import build_png_lmdb, build_raw_lmdb
from basicsr_clsd.prepare.workspace import MADE_FROM, Storage, bar, is_made, staged
from basicsr_clsd.runtime.files import check_writable, write_image, write_text
from basicsr_clsd.runtime.threads import in_threads

LONGEST_NAME, LONGEST_RUN = 100, 60  # letters of an image, of a run
SHOWN = 20  # names in a line of what was left out
HASHES = 2**64


class Scanned(NamedTuple):
    """What a first look at a photo found."""

    height: int
    width: int
    digest: str  # of the pixels
    changes: tuple[str, ...]


class Rules(NamedTuple):
    """What decides, with the photos, on the set that is made of them.

    Args:
        scales: Of the LR images.
        val: Photos to validate on: a fraction (``float``) or a number (``int``) of all.
        seed: Of the split.
        min_size: A photo that is smaller on a side, as cropped, is left out.
        storage: Beside each folder an LMDB of raw pixels, none, or an LMDB of PNG images as BasicSR makes it.
    """

    scales: tuple[int, ...]
    val: float | int
    seed: int
    min_size: int
    storage: Storage

    @property
    def multiple(self) -> int:
        """What the sides of all HR images are a multiple of."""
        return math.lcm(*self.scales)


def prepare(source: Path, target: Path, rules: Rules, console: Console) -> bool:
    """Make ``target/train`` and ``target/val``, each with ``HR`` and ``LRbicx{S}`` and LMDBs of them, from photos.

    HR images are the photos as :func:`~basicsr_clsd.images.photo.read_photo` gives them, cropped at the bottom and the
    right to a multiple of all scales (as DIV2K's are), so that they pair with LR images exactly whoever reads them; LR
    images are MATLAB's bicubic of the cropped ones. All photos are looked at first: if some cannot be used, these are
    listed, all of them, and nothing is made. Photos with the pixels of another one and those that are too small are
    left out, and listed. ``target`` is filled under a hidden name and renamed when it is whole.

    Whether a photo is to validate depends on the seed and its path below ``source`` alone: with a fraction, photos
    that are added later do not change the part of the others.

    Args:
        source: Folder with photos, in sub-folders too; never written to.
        target: Folder to make.
        rules: How.
        console: For progress, what was left out, and the commands that train on the set.

    Returns:
        Whether there is a set; False if photos cannot be used.

    Raises:
        UserError: No photos, too few, or something else is at ``target``.
        OSError: The disk is full, ...
    """
    if not source.is_dir():
        raise UserError(f'{source}: no such folder')
    inner, outer = source.resolve(), target.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise UserError(f'{target}: must lie outside the folder of the photos, and not hold it')
    photos, others = find_photos(source)
    if not photos:
        raise UserError(f'{source}: no photos in this folder')
    settings = json.loads(json.dumps(rules._asdict()))
    store = FolderStore(source)
    stamps = {photo: store.stamp(photo) for photo in photos}
    if is_made(target, settings, stamps):
        console.print(_shown(f'{target}: is there already, made from these photos'), highlight=False, markup=False)
    else:
        check_writable(target.parent)
        scanned, faults = _scan(source, photos, console)
        for fault in faults:
            console.print(_shown(fault), highlight=False, markup=False)
        if faults:
            count = f'{len(faults)} of {len(photos)} photos'
            console.print(f'{count} cannot be used; nothing was made. Take them out of the folder, or mend them')
            return False
        chosen, notes = _chosen(scanned, rules)
        part = _split(chosen, rules)
        with staged(target, settings, stamps) as folder:
            if folder is not None:
                _write(source, folder, part, rules, stamps, console)
        notes += [_listed('no photos, left out', others)] if others else []
        for note in notes:
            console.print(_shown(note), highlight=False, markup=False)
    _say_how_to_train(target, rules, console)
    return True


def safe_names(photos: Sequence[str]) -> dict[str, str]:
    """A name without extension for each photo: letters, digits, ``-`` and ``_`` of ASCII, no two alike.

    Sub-folders become part of the name (``trip/IMG 1.jpg``: ``trip_IMG_1``). Where letters were lost, or two photos
    would share a name on some file system, the name ends in a hash of the photo's path.
    """
    plain = {}
    for photo in photos:
        path = photo.rsplit('.', 1)[0] if '.' in Path(photo).name else photo
        letters = unicodedata.normalize('NFKD', path).encode('ascii', 'ignore').decode()
        plain[photo] = re.sub('[^A-Za-z0-9-]+', '_', letters).strip('_')[:LONGEST_NAME]
    folded = [name.casefold() for name in plain.values()]
    names, taken = {}, set()
    for photo, name in plain.items():
        lost = not photo.isascii() or not name or len(name) == LONGEST_NAME
        digest = hashlib.sha256(os.fsencode(photo)).hexdigest()
        unique = f'{name}_{digest[:8]}'.strip('_') if lost or folded.count(name.casefold()) > 1 else name
        names[photo] = unique if unique.casefold() not in taken else f'{name}_{digest}'
        taken.add(names[photo].casefold())
    return names


def _scan(source: Path, photos: list[str], console: Console) -> tuple[dict[str, Scanned], list[str]]:
    """Decode all photos; return what was found, and what is wrong with the others, a line for each."""

    def look(photo: str) -> Scanned | str:
        try:
            pixels, changes = read_photo(source / photo)
        except UserError as error:
            return str(error)
        content = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes())
        return Scanned(pixels.shape[0], pixels.shape[1], content.hexdigest(), changes)

    results = dict(zip(photos, in_threads(look, photos, bar(console, 'Looking at photos')), strict=True))
    scanned = {photo: result for photo, result in results.items() if isinstance(result, Scanned)}
    return scanned, [result for result in results.values() if isinstance(result, str)]


def _chosen(scanned: dict[str, Scanned], rules: Rules) -> tuple[list[str], list[str]]:
    """The photos to use, and a line on each kind of photos that are not, or not as they are."""
    small, copies, first = [], [], {}
    changes: dict[str, list[str]] = {}
    for photo, found in scanned.items():
        if min(side // rules.multiple * rules.multiple for side in found[:2]) < rules.min_size:
            small.append(f'{photo} ({found.width}x{found.height})')
        elif found.digest in first:
            copies.append(f'{photo} (of {first[found.digest]})')
        else:
            first[found.digest] = photo
            for change in found.changes:
                changes.setdefault(change, []).append(photo)
    notes = [_listed(change, changed) for change, changed in sorted(changes.items())]
    if small:
        notes.append(_listed(f'smaller than {rules.min_size} pixels, left out', small))
    if copies:
        notes.append(_listed('copies, left out', copies))
    return list(first.values()), notes


def _split(photos: Sequence[str], rules: Rules) -> dict[str, str]:
    """``train`` or ``val`` for each photo, by a hash of the seed and its path."""

    def number(photo: str) -> float:
        digest = hashlib.sha256(b'%d/%s' % (rules.seed, os.fsencode(photo))).digest()
        return int.from_bytes(digest[:8], 'big') / HASHES

    if isinstance(rules.val, float):
        count = sum(number(photo) < rules.val for photo in photos)
        if rules.val and len(photos) > 1:
            count = min(max(count, 1), len(photos) - 1)
    else:
        count = rules.val
    if count >= len(photos):
        raise UserError(f'{len(photos)} photos can be used, too few to train on some and validate on {max(count, 1)}')
    val = set(sorted(photos, key=number)[:count])
    return {photo: 'val' if photo in val else 'train' for photo in photos}


def _write(
    source: Path, folder: Path, part: dict[str, str], rules: Rules, stamps: dict[str, list[int]], console: Console
) -> None:
    names = safe_names(list(part))

    def make(photo: str) -> None:
        home, name = folder / part[photo], f'{names[photo]}.png'
        # HR last: where it is, the LR images are too.
        targets = {scale: home / f'LRbicx{scale}' / name for scale in rules.scales} | {1: home / 'HR' / name}
        if targets[1].exists():
            return
        pixels = read_photo(source / photo).pixels
        height, width = (side // rules.multiple * rules.multiple for side in pixels.shape[:2])
        hr = pixels[:height, :width]
        for scale, path in targets.items():
            write_image(hr if scale == 1 else matlab_resize(hr, 1 / scale), path)

    for _ in in_threads(make, list(part), bar(console, 'Writing HR and LR')):
        pass
    if rules.storage != 'folder':
        build = build_raw_lmdb if rules.storage == 'raw' else build_png_lmdb
        for home in sorted(set(part.values())):
            for images in ('HR', *(f'LRbicx{scale}' for scale in rules.scales)):
                store = FolderStore(folder / home / images)
                what = f'Storing {home}/{images}.lmdb'
                build(store, folder / home / f'{images}.lmdb', progress=bar(console, what))
    made_from = json.loads((folder / MADE_FROM).read_text(encoding='utf-8'))
    made_from['images'] = {f'{part[photo]}/{names[photo]}': photo for photo in sorted(part)}
    write_text(json.dumps(made_from, indent=0), folder / MADE_FROM)


def _say_how_to_train(target: Path, rules: Rules, console: Console) -> None:
    counts = [len(FolderStore(target / part / 'HR').names()) for part in ('train', 'val')]
    console.print(_shown(f'{target}: {counts[0]} photos to train on, {counts[1]} to validate on'), highlight=False)
    for scale in rules.scales:
        command = training_command(target, scale, rules.storage, counts[1] > 0)
        console.print(f'\nTo train at x{scale}:\n\n{_shown(command)}', highlight=False, markup=False)


def training_command(folder: Path, scale: int, storage: str, validation: bool) -> str:
    """The command that trains with the paper's settings on ``folder/train``, in lines that a shell joins.

    Args:
        folder: A set as :func:`prepare` makes it.
        scale: 2, 3 or 4.
        storage: ``folder``, or an LMDB beside each folder.
        validation: Whether there is ``folder/val`` too.
    """
    folder = folder.absolute()
    options, repository = f'train_CLSD_x{scale}.yml', checkout()
    program = ['clsd-train']
    if repository is not None:
        start = Path() if Path.cwd() == repository else repository
        program, options = ['python', str(start / 'basicsr_clsd' / 'train.py')], str(start / 'options' / options)
    name = re.sub(r'[^A-Za-z0-9_-]+', '_', folder.name)[:LONGEST_RUN].strip('_') or 'photos'
    end = '' if storage == 'folder' else '.lmdb'

    def keys(section: str, part: str) -> list[str]:
        return [
            f'datasets:{section}:name={_value(f"{name}_{part}")}',
            f'datasets:{section}:dataroot_gt={_value(os.fspath(folder / part / f"HR{end}"))}',
            f'datasets:{section}:dataroot_lq={_value(os.fspath(folder / part / f"LRbicx{scale}{end}"))}',
            f'datasets:{section}:filename_tmpl=null',
        ]

    lines = [
        [*program, '-opt', options, '--force_yml', f'name={_value(f"{name}_x{scale}")}'],
        keys('train', 'train'),
        [*keys('val', 'val'), 'datasets:val:names=null'] if validation else ['datasets:val=null'],
    ]
    return ' \\\n    '.join(shlex.join(line) for line in lines)


def _value(text: str) -> str:
    """A text as a YAML value that is read as this text."""
    try:
        plain = parse_yaml(text) == text
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return f'{what}: {", ".join(names[:SHOWN])}{more}'


def _shown(text: str) -> str:
    """A text that can be printed, whatever bytes a file's name has."""
    return text.encode('utf-8', 'backslashreplace').decode()
