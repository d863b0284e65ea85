"""What every shipped options file resolves to: ``python tests/helpers/resolved_options.py`` writes it down.

An entry has what differs from the schema's defaults. ``git diff`` on ``resolved_options.yml`` then shows which runs an
edit of an options file changes, and how.
"""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from basicsr_clsd.config import load
from basicsr_clsd.config.load import read_yaml

OPTIONS = Path(__file__).resolve().parents[2] / 'options'
SNAPSHOT = Path(__file__).resolve().parents[1] / 'config' / 'resolved_options.yml'


def shipped() -> list[str]:
    """The files that are options of a run, by their path in ``options/``."""
    paths = [path.relative_to(OPTIONS) for path in sorted(OPTIONS.rglob('*.yml'))]
    public = [path.as_posix() for path in paths if not any(part.startswith('_') for part in path.parts)]
    return [name for name in public if 'runs' not in read_yaml(OPTIONS / name)]  # sets of trainings for ablate.py


def resolved(name: str) -> dict[str, Any]:
    """The values of a file that differ from the defaults, by section and key, as on a machine that computes bf16."""
    with patch('basicsr_clsd.config.schema.computes_bf16', return_value=(True, '')):
        return _flat(load(OPTIONS / name).model_dump(exclude_defaults=True))


def _flat(values: dict[str, Any], above: str = '') -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        found |= _flat(value, f'{above}{key}.') if isinstance(value, dict) and value else {f'{above}{key}': value}
    return found


if __name__ == '__main__':
    found = {name: resolved(name) for name in shipped()}
    SNAPSHOT.write_text(yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=1000), encoding='utf-8')
