"""Where relative paths of the options lead."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def located(path: str | Path) -> Path:
    """A data path: ``~`` is the home folder, and ``datasets/...`` lies in ``$CLSD_DATA`` where that is set."""
    parts = Path(path).parts
    root = os.environ.get('CLSD_DATA')
    return Path(root, *parts[1:]) if root and parts[:1] == ('datasets',) else Path(path).expanduser()


def output_root(chosen: str | None, default: str) -> Path:
    """A folder to write to: the chosen one, or ``default`` in the repository."""
    return Path(chosen).expanduser().absolute() if chosen else REPOSITORY / default
