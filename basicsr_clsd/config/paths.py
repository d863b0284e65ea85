"""Where relative paths of the options lead, and where the package's own files lie."""

import os
from pathlib import Path

from basicsr_clsd.errors import suggest

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
        path: As it was given; ``train_CLSD_x2.yml``, ``small/test_x2.yml`` and ``options/small/test_x2.yml`` are names
            of shipped files.
        folder: Where a relative path starts; the current folder if left out.

    Returns:
        A file that exists, or the path itself.
    """
    given = Path(folder or '', path)
    shipped = SHIPPED_OPTIONS / _shipped_name(path)
    return shipped if not given.exists() and shipped.is_file() else given


def nearest_options_file(path: str | Path) -> str:
    """`` (did you mean 'x'?)`` for the shipped options file whose name is nearest, or an empty string."""
    known = {file.relative_to(SHIPPED_OPTIONS).as_posix() for file in SHIPPED_OPTIONS.rglob('*.yml')}
    same = sorted(name for name in known if Path(name).name == Path(path).name)
    return suggest(same[0] if same else _shipped_name(path), known)


def _shipped_name(path: str | Path) -> str:
    parts = Path(path).parts
    return '/'.join(parts[1:] if parts[:1] == ('options',) else parts)
