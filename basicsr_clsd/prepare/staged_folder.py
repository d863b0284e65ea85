"""A folder that is whole or not there: filled under a hidden name, and renamed at the end."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basicsr_clsd.errors import UserError
from basicsr_clsd.prepare.workspace import MADE_FROM, claimed
from basicsr_clsd.runtime.files import check_writable, sync_folder, temporary_path, write_text


@contextmanager
def staged(target: Path, settings: Mapping[str, Any], sources: Mapping[str, list[int]]) -> Iterator[Path | None]:
    """Give a hidden folder beside ``target`` to fill; it becomes ``target`` when the block ends without an error.

    If the block does not end, however that is, what it has put there is given again to the next call with the same
    settings and sources, and cleared away by one with others.

    Args:
        target: The folder to make.
        settings: What else than the sources decides on its content; values that JSON keeps as they are.
        sources: Size and time of the last change of each file it is made from.

    Yields:
        The folder to fill; None if ``target`` is there and was made from the same.

    Raises:
        UserError: Something else is at ``target``, or another command fills it.
    """
    made_from = {'settings': dict(settings), 'sources': dict(sources)}
    check_writable(target.parent)
    hidden = temporary_path(target)
    with claimed(hidden):
        if is_made(target, settings, sources):
            shutil.rmtree(hidden)
            yield None
            return
        if _read(hidden) != made_from:
            (hidden / MADE_FROM).unlink(missing_ok=True)  # first: it vouches for the rest
            for path in hidden.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_text(json.dumps(made_from, indent=0), hidden / MADE_FROM)
        yield hidden
        sync_folder(hidden)
        os.rename(hidden, target)
        sync_folder(target.parent)


def is_made(target: Path, settings: Mapping[str, Any], sources: Mapping[str, list[int]]) -> bool:
    """Whether the target is there and made from this; something else in its place is a :class:`UserError`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found = _read(target)
    if found is None:
        raise UserError(f'{target}: is there already, and not made by this command; choose another folder')
    for key, value in settings.items():
        if found['settings'].get(key) != value:
            before = found['settings'].get(key)
            raise UserError(f'{target}: was made with {key} {before}, not {value}; choose another folder')
    before = found['sources']
    for name in sorted(before.keys() | sources.keys()):
        if before.get(name) != sources.get(name):
            how = 'without' if name not in before else 'before a change of' if name in sources else 'with the former'
            raise UserError(f'{target}: was made {how} {name}; choose another folder')
    return True


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / MADE_FROM).read_text(encoding='utf-8'))
        return {key: dict(content[key]) for key in ('settings', 'sources')}
    except (OSError, ValueError, LookupError, TypeError):
        return None
