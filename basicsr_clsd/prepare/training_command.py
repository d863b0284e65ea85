"""The command line that trains on a set of one's own, to be copied from the terminal."""

import json
import os
import re
import shlex
from pathlib import Path

import yaml

from basicsr_clsd.config.load import parse_yaml
from basicsr_clsd.config.paths import checkout

LONGEST_NAME = 60


def training_command(folder: Path, scale: int, storage: str, validation: bool) -> str:
    """The command that trains with the paper's settings on ``folder/train``, in lines that a shell joins.

    Args:
        folder: A set as :func:`basicsr_clsd.prepare.photo_set.prepare` makes it.
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
    name = re.sub(r'[^A-Za-z0-9_-]+', '_', folder.name)[:LONGEST_NAME].strip('_') or 'photos'
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
