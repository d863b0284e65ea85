"""Where relative paths of the options lead, and where the package's own files lie."""

import os
from pathlib import Path

from basicsr_clsd.errors import UserError, suggest

PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED_OPTIONS = PACKAGE / 'options'  # of a checkout, a link to `options/`


def checkout() -> Path | None:
    """The repository, where the package is run from one; ``None`` for an installed package."""
    return PACKAGE.parent if (PACKAGE.parent / 'pyproject.toml').is_file() else None


def located(path: str | Path) -> Path:
    """A data path: ``~`` is the home folder, and ``datasets/...`` lies in ``$CLSD_DATA`` where that is set."""
    parts = Path(path).parts
    root = os.environ.get('CLSD_DATA')
    return Path(root, *parts[1:]) if root and parts[:1] == ('datasets',) else Path(path).expanduser()


def output_root(chosen: str | None, default: str) -> Path:
    """A folder to write to: the chosen one, else ``default`` in the checkout, or in the current folder if installed."""
    return Path(chosen).expanduser().absolute() if chosen else (checkout() or Path.cwd()) / default


def options_file(path: str | Path, folder: Path | None = None) -> Path:
    """An options file: the one at this path, else the shipped one of this name.

    Args:
        path: As it was given. ``train_CLSD_x2.yml``, ``small/test_x2.yml`` and ``options/small/test_x2.yml`` are names
            of shipped files.
        folder: Where a relative path starts; the current folder if left out.

    Raises:
        UserError: There is neither; it suggests the shipped file whose name is nearest.
    """
    given = Path(folder or '', path)
    if given.exists():
        return given
    parts = Path(path).parts
    name = '/'.join(parts[1:] if parts[:1] == ('options',) else parts)
    shipped = SHIPPED_OPTIONS / name
    if shipped.is_file():
        return shipped
    known = [file.relative_to(SHIPPED_OPTIONS).as_posix() for file in sorted(SHIPPED_OPTIONS.rglob('*.yml'))]
    elsewhere = [each for each in known if Path(each).name == given.name]
    hint = suggest(elsewhere[0] if elsewhere else name, known)
    raise UserError(f'{given}: cannot be read as an options file: No such file or directory{hint}')
