"""Whether a folder holds the images it should: all of them, no others, each decodes and has the right size."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.files import write_text
from basicsr_clsd.runtime.threads import in_threads

Size = tuple[int, int]  # (height, width)

SAVE_EVERY = 50


def verify(
    folder: Path, names: Iterable[str], progress: Callable[[list[str]], Iterable[str]] = iter
) -> tuple[dict[str, Size], list[str]]:
    """Decode the images of a folder and compare their names with those that it should have.

    What was found of each image is kept in ``.FOLDER.verified.json`` beside the folder, with the size and time of its
    file: an image that is as it was is not decoded again.

    Args:
        folder: Image files.
        names: The files it should have.
        progress: Wraps the names of the images to decode, to show how far it is.

    Returns:
        (height, width) of each image that decodes, and everything that is wrong, a line for each fault.
    """
    store = FolderStore(folder)
    wanted, present = set(names), store.names()
    faults = [f'{folder / name}: missing' for name in sorted(wanted - set(present))]
    faults += [f'{folder / name}: not one of this set' for name in present if name not in wanted]

    manifest = folder.with_name(f'.{folder.name}.verified.json')
    known = _read(manifest)
    stamps = {name: store.stamp(name) for name in present if name in wanted}
    sound = {name: known[name] for name, stamp in stamps.items() if name in known and known[name][:2] == stamp}
    todo = [name for name in stamps if name not in sound]
    results = zip(todo, in_threads(lambda name: _decoded_size(store, name), todo, progress), strict=True)
    for count, (name, result) in enumerate(results, start=1):
        if isinstance(result, str):
            faults.append(result)
        else:
            sound[name] = [*stamps[name], *result]
        if count % SAVE_EVERY == 0 or count == len(todo):
            write_text(json.dumps(sound, indent=0), manifest)
    return {name: (height, width) for name, (_, _, height, width) in sound.items()}, faults


def _decoded_size(store: FolderStore, name: str) -> Size | str:
    """(height, width) of an image, or what is wrong with it."""
    try:
        height, width = store.read(name).shape[:2]
    except UserError as error:
        return str(error)
    return height, width


def _read(manifest: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(manifest.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) == 4}  # noqa: PLR2004
