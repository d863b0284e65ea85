"""What is known of the training that a checkpoint comes from."""

import re
from pathlib import Path
from typing import Any

from basicsr_clsd.config.load import read_yaml
from basicsr_clsd.errors import UserError


def experiment_of(checkpoint: str | Path) -> Path | None:
    """The experiment folder that a checkpoint lies in: ``NAME`` of ``NAME/models/net_g_*.pth``, or None."""
    path = Path(checkpoint).expanduser().absolute()
    folder = path.parent.parent
    return folder if path.parent.name == 'models' and (folder / f'{folder.name}.yml').is_file() else None


def training_of(checkpoint: str | Path) -> dict[str, Any] | None:
    """Name, ``manual_seed``, iteration and resolved options of the training, from its experiment folder.

    Returns:
        ``{'name', 'manual_seed', 'iteration', 'options'}``, where ``iteration`` is None if the file's name does not
        tell it (``net_g_best.pth``); None if the checkpoint lies in no experiment folder of this project.
    """
    folder = experiment_of(checkpoint)
    if folder is None:
        return None
    try:
        options = read_yaml(folder / f'{folder.name}.yml')
    except UserError:
        return None
    return {
        'name': str(options.get('name', folder.name)),
        'manual_seed': options.get('manual_seed'),
        'iteration': _iteration(Path(checkpoint), folder),
        'options': options,
    }


def _iteration(checkpoint: Path, folder: Path) -> int | None:
    number = re.fullmatch(r'net_g_(\d+|latest)', checkpoint.stem)
    if number is None:
        return None
    if number[1] != 'latest':
        return int(number[1])
    # It is written at the end of a run, as the last state is.
    states = [int(path.stem) for path in (folder / 'training_states').glob('*.state') if path.stem.isdigit()]
    return max(states, default=None)
