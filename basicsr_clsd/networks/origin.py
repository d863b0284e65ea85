"""What is known of the network that weights are for, and of the training that they come from."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from basicsr_clsd.config.components import Component
from basicsr_clsd.config.load import read_yaml
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.edsr_arguments import edsr_arguments
from basicsr_clsd.networks.weights import WeightsFile

DECODER = 'net_decoder'  # begins the names of files that have the decoder alone of a network of encoder and decoder
NETWORK, SCALE = 'network_g', 'scale'  # in the header of an exported file: the section, in JSON, and the factor
KEYS = ('params_ema', 'params')  # where weights are looked for if nothing else is said
NOT_IN_WEIGHTS = ('res_scale', 'img_range', 'rgb_mean')


def network_of(file: WeightsFile) -> tuple[Component, int]:
    """What network weights are for: ``network_g``, and its scale.

    From the weights themselves for an EDSR, with what these do not tell from the file's header or its experiment; else
    from there alone.

    Raises:
        UserError: It cannot be found out.
    """
    told, scale = _told(file)
    arguments = edsr_arguments(file.weights(KEYS))
    if arguments is not None:
        known = {key: told[key] for key in NOT_IN_WEIGHTS if told and key in told}
        told, scale = {'type': 'EDSR', **arguments, **known}, arguments['upscale']
    if told is None:
        raise UserError(
            f'{file.path}: not the weights of an EDSR for RGB; give the options it was trained with (-opt YAML)'
        )
    try:
        return Component.model_validate(told), int(scale)
    except (ValidationError, TypeError, ValueError) as error:
        raise UserError(f'{file.path}: what it says of its network is no network_g with a scale') from error


def _told(file: WeightsFile) -> tuple[dict[str, Any] | None, Any]:
    """What the file's header, or the experiment that it lies in, says of its network; None: nothing."""
    try:
        section, scale = json.loads(file.header.get(NETWORK, 'null')), file.header.get(SCALE)
    except ValueError as error:
        raise UserError(f"{file.path}: its header's '{NETWORK}' is not JSON") from error
    run = training_of(file.path)
    if section is None and run is not None:
        section, scale = run['options'].get(NETWORK), run['options'].get(SCALE)
    if isinstance(section, dict) and file.path.name.startswith(DECODER):
        section = section.get('decoder')
    return section if isinstance(section, dict) else None, scale


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
