"""LMDBs made from the images of a store: of raw pixels, or BasicSR's."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import lmdb
import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.data.lmdb import (
    BAND_ROWS,
    MARKER,
    META,
    RAW,
    Kind,
    Record,
    band_key,
    check_length,
    read_records,
    records_of,
)
from basicsr_clsd.data.stores import FolderStore, ImageStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import stem
from basicsr_clsd.runtime.files import check_free, check_writable, hidden_path, sync, write_text
from basicsr_clsd.runtime.locks import exclusive, lock_path

Item = tuple[bytes, bytes | memoryview]
Encode = Callable[[str, NDArray[np.uint8]], Iterable[Item]]
Progress = Callable[[Iterable[str]], Iterable[str]]

PNG = "PNG images, BasicSR's layout"
PNG_LEVEL = 1  # of compression, as in BasicSR's own LMDBs
MAP_SIZE = 2**28  # to start with
COMMIT_BYTES = 2**26  # of pixels from one commit, which is synced to disk, to the next
LONGEST_NAME = 500  # bytes; a key of LMDB has at most 511


def build_raw_lmdb(
    source: ImageStore, target: Path, names: Sequence[str] | None = None, progress: Progress = iter
) -> bool:
    """Write an LMDB of raw pixels (see :class:`~basicsr_clsd.data.lmdb.RawLmdbStore`).

    It is made in a hidden folder beside ``target`` and renamed when it is whole. What is in it is synced to disk every
    so often, and a build that was interrupted, however that was, goes on from there when it is started again.

    Args:
        source: The images; their names without extension are those in the LMDB.
        target: Folder to make, ``....lmdb``.
        names: Which images; default all.
        progress: Is given the names of the images that remain to be stored and passes them on, as a progress bar does.

    Returns:
        Whether anything was done; False if ``target`` was made from the same images before (the same names, and files
        of the same sizes and times of change).

    Raises:
        UserError: ``target`` was made from other images or is something else; no images, an image that cannot be
            decoded, names that differ only in the extension or cannot be keys.
        OSError: The disk is full, ...; what is done stays in the hidden folder, to go on from.
    """

    def bands(key: str, image: NDArray[np.uint8]) -> Iterator[Item]:
        for number, first in enumerate(range(0, len(image), BAND_ROWS)):
            yield band_key(key, number), np.ascontiguousarray(image[first : first + BAND_ROWS]).reshape(-1).data

    return _build(RAW, source, target, names, progress, bands)


def build_png_lmdb(
    source: ImageStore, target: Path, names: Sequence[str] | None = None, progress: Progress = iter
) -> bool:
    """Write BasicSR's LMDB of PNG images with its ``meta_info.txt``; arguments and errors as :func:`build_raw_lmdb`.

    BasicSR itself takes ASCII names alone and cuts them at the first dot; a warning tells if there are others.
    """

    def png(key: str, image: NDArray[np.uint8]) -> Iterator[Item]:
        done, content = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
        assert done
        yield key.encode(), content.tobytes()

    return _build(PNG, source, target, names, progress, png)


def _build(
    kind: str, source: ImageStore, target: Path, names: Sequence[str] | None, progress: Progress, encode: Encode
) -> bool:
    if target.suffix != '.lmdb':
        raise UserError(f"{target}: the name of an LMDB ends in '.lmdb'")
    keys = _keys(source, names)
    files = {key: (name, source.stamp(name)) for key, name in keys.items()}
    if _is_made(target, kind, files):
        return False
    check_writable(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == PNG:
        _warn_of_names(target, keys)
    folder = hidden_path(target)
    with exclusive(lock_path(target), target):
        if _is_made(target, kind, files):  # by another process, meanwhile
            return False
        folder.mkdir(exist_ok=True)
        try:
            with _opened(folder, kind, files) as environment:
                records = _fill(environment, source, files, progress, encode, folder if kind == RAW else None)
        except lmdb.Error as error:
            # LMDB calls a write that a full disk cut short an input/output error.
            reason = f'{error} (is the disk full?)'
            raise OSError(f'{target}: cannot be written: {reason}; what is done stays in {folder}') from error
        if kind == PNG:
            lines = [f'{key}.png ({records[key].height},{records[key].width},3) {PNG_LEVEL}\n' for key in sorted(keys)]
            write_text(''.join(lines), folder / META)
        sync(folder)
        os.rename(folder, target)
        sync(target.parent)
    return True


def _keys(source: ImageStore, names: Sequence[str] | None) -> dict[str, str]:
    """The image's name in the source by that in the LMDB."""
    known = source.names()
    missing = set(names or ()) - set(known)
    if missing:
        raise UserError(f'{source.root}: {min(missing)} is not there')
    keys: dict[str, str] = {}
    for name in known if names is None else dict.fromkeys(names):
        key = stem(name) if isinstance(source, FolderStore) else name
        if key in keys:
            raise UserError(f'{source.root}: {keys[key]} and {name} differ only in the extension; rename one')
        if len(os.fsencode(key)) > LONGEST_NAME or len(key.splitlines()) > 1 or not _is_text(key):
            raise UserError(f'{source.root}: {name!r} cannot be stored in an LMDB under this name; rename it')
        keys[key] = name
    if not keys:
        raise UserError(f'{source.root}: no images to make an LMDB of')
    return keys


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _warn_of_names(target: Path, keys: Iterable[str]) -> None:
    lost = [key for key in keys if '.' in key or not key.isascii()]
    if lost:
        others = f' and {len(lost) - 1} more' if len(lost) > 1 else ''
        logging.getLogger('basicsr').warning(
            f'{target}: BasicSR itself will not find {lost[0]}{others}: it takes ASCII names and cuts them at a dot'
        )


def _is_made(target: Path, kind: str, files: dict[str, tuple[str, list[int]]]) -> bool:
    """Whether the target is there, whole and made from these files; something else in its place is an error."""
    if not os.path.lexists(target):
        return False
    found, records = read_records(target)
    instead = 'remove it, or choose another name'
    if found is None:
        raise UserError(f'{target}: is there already and was not made by this project; {instead}')
    if found != Kind(kind):
        raise UserError(f'{target}: is there already and holds {found.format} (version {found.version}); {instead}')
    for key in sorted(files.keys() | records.keys()):
        if key not in files or key not in records:
            raise UserError(f'{target}: was made {"with" if key in records else "without"} the image {key}; {instead}')
        if (records[key].name, records[key].stamp) != files[key]:
            raise UserError(f'{target}: was made before {files[key][0]} was changed; {instead}')
    return True


@contextmanager
def _opened(folder: Path, kind: str, files: dict[str, tuple[str, list[int]]]) -> Iterator[lmdb.Environment]:
    """The LMDB in the hidden folder, to write to; begun anew if what was begun there was something else."""
    environment = _begun(folder)
    if environment is not None:
        with environment.begin() as transaction:
            try:
                found, records = records_of(transaction, folder)
            except UserError:
                found, records = None, {}
        if found != Kind(kind) or any(files.get(key) != (record.name, record.stamp) for key, record in records.items()):
            environment.close()
            environment = None
    if environment is None:
        for path in folder.iterdir():
            path.unlink()
        environment = lmdb.open(str(folder), map_size=MAP_SIZE, lock=False, mode=0o644)
        _put(environment, [(MARKER, json.dumps(Kind(kind)._asdict()).encode())])
    try:
        yield environment
    finally:
        environment.close()


def _begun(folder: Path) -> lmdb.Environment | None:
    try:
        environment = lmdb.open(str(folder), map_size=MAP_SIZE, lock=False, create=False)
    except lmdb.Error:
        return None
    try:
        check_length(environment, folder)
    except UserError:
        environment.close()
        return None
    return environment


def _fill(
    environment: lmdb.Environment,
    source: ImageStore,
    files: dict[str, tuple[str, list[int]]],
    progress: Progress,
    encode: Encode,
    raw_folder: Path | None,
) -> dict[str, Record]:
    """Store what is not there yet; return all records."""
    with environment.begin() as transaction:
        records = records_of(transaction, source.root)[1]
    keys = {name: key for key, (name, _) in files.items() if key not in records}
    if raw_folder is not None:
        sizes = [source.size(name) for name in keys]
        check_free(raw_folder, sum(3 * height * width for height, width in sizes))
    items: list[Item] = []
    for name in progress(list(keys)):
        key, image = keys[name], source.read(name)
        records[key] = Record(image.shape[0], image.shape[1], *files[key])
        items += [*encode(key, image), (MARKER + key.encode(), json.dumps(records[key]).encode())]
        if sum(len(content) for _, content in items) >= COMMIT_BYTES:
            _put(environment, items)
            items = []
    _put(environment, items)
    return records


def _put(environment: lmdb.Environment, items: Sequence[Item]) -> None:
    """Store items in one transaction, and have it on the disk; the map grows as it must."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, content in items:
                    transaction.put(key, content)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()['map_size'])
