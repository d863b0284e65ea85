"""From what a user calls a model to a network that upscales: weights, an ONNX file, a name in ``model_zoo/``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError
from torch import Tensor

from basicsr_clsd.config import Options, load
from basicsr_clsd.config.paths import PACKAGE
from basicsr_clsd.errors import UserError, suggest
from basicsr_clsd.inference.checkpoint_origin import training_of
from basicsr_clsd.inference.deployed_network import DeployedNetwork
from basicsr_clsd.inference.edsr_arguments import edsr_arguments
from basicsr_clsd.inference.onnx_network import OnnxNetwork
from basicsr_clsd.networks.weights import read_file, read_weights, safetensors_header

ZOO = PACKAGE / 'model_zoo'
SUFFIXES = ('.pth', '.pt', '.safetensors', '.onnx')
PRECISIONS = ('fp32', 'bf16', 'fp16')
NETWORK = 'network_g'  # in the header of a safetensors file and an ONNX file: that section, in JSON
NOT_IN_WEIGHTS = ('res_scale', 'img_range', 'rgb_mean')


Section = tuple[dict[str, Any], Any]  # `network_g` and `scale`, unchecked


class Network(Protocol):
    """What upscales."""

    scale: int
    window: int
    reach: int | None  # how far it sees, in LR pixels; None: not known

    def upscale(self, lq: Tensor) -> Tensor:
        """Upscale (N, 3, h, w) in [0, 1] to (N, 3, h·s, w·s), float32, unclipped, on the CPU."""
        ...


def model_file(model: str | Path) -> Path:
    """The file of a model: a path, or a name in ``model_zoo/`` with or without extension.

    Raises:
        UserError: There is none.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    zoo = sorted(file for file in ZOO.glob('*') if file.suffix in SUFFIXES)
    found = [file for file in zoo if str(model) in (file.name, file.stem)]
    if found:
        return found[0]
    names = [file.stem for file in zoo]
    hint = suggest(str(model), names)
    known = f'; model_zoo has {", ".join(names)}' if names and not hint and path.name == str(model) else ''
    raise UserError(f'{model}: no such file{hint}{known}')


def open_network(
    model: str | Path, options: str | Path | None = None, precision: str = 'fp32', gpu: bool = True
) -> Network:
    """Open a model.

    Args:
        model: See :func:`model_file`: weights (``.pth``, ``.pt``, ``.safetensors``) or an ONNX file.
        options: YAML whose ``network_g`` and ``scale`` the weights are for; for weights of an EDSR, and of any network
            in the folder of its experiment, it is not needed.
        precision: ``fp32``, ``bf16`` or ``fp16``, of a network of weights.
        gpu: Use one if there is one.

    Raises:
        UserError: One line that names the file.
    """
    path = model_file(model)
    if path.suffix.lower() != '.onnx':
        return open_weights(path, options, precision, gpu)
    if options is not None or precision != 'fp32':
        what = 'options' if options is not None else 'precision'
        raise UserError(f'{path}: an ONNX file has its own {what}; leave them out')
    return OnnxNetwork(path, gpu=gpu)


def open_weights(
    path: Path, options: str | Path | None = None, precision: str = 'fp32', gpu: bool = True
) -> DeployedNetwork:
    """Open weights; see :func:`open_network`."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f'{path}: not a model; its extension would be one of {", ".join(SUFFIXES)}')
    content = read_file(path)
    key = 'params_ema' if isinstance(content, Mapping) and 'params_ema' in content else 'params'
    section, scale = network_section(path, read_weights(path, key), options)
    try:
        checked = Options.model_validate(
            {
                'name': 'inference',
                'scale': scale,
                'num_gpu': 'auto' if gpu else 0,
                'network_g': section,
                'path': {'pretrain_network_g': str(path), 'param_key_g': key},
            }
        )
    except ValidationError as error:
        raise UserError(f'{path}: what it says of its network is no network_g with a scale') from error
    return DeployedNetwork(checked, precision)


def network_section(path: Path, weights: Mapping[str, Tensor], options: str | Path | None) -> Section:
    """What network weights are for: ``network_g``, and its scale.

    From an options file where one is given; else from the weights themselves, with what these do not tell from the
    file's header or its experiment; else, for what is no EDSR, from there alone.

    Raises:
        UserError: It cannot be found out.
    """
    if options is not None:
        loaded = load(options, [])
        return loaded.network_g.as_dict(), loaded.scale
    told = _told(path)
    arguments = edsr_arguments(weights)
    if arguments is not None:
        known = told[0] if told else {}
        beside = {key: known[key] for key in NOT_IN_WEIGHTS if key in known}
        return {'type': 'EDSR', **arguments, **beside}, arguments['upscale']
    if told is None:
        raise UserError(f'{path}: not the weights of an EDSR for RGB; give the options it was trained with (-opt YAML)')
    return told


def _told(path: Path) -> Section | None:
    """What a weights file's header, or the experiment that it lies in, says of its network; None: nothing."""
    header = safetensors_header(path)
    try:
        section, scale = json.loads(header.get(NETWORK, 'null')), header.get('scale')
    except ValueError as error:
        raise UserError(f"{path}: its header's '{NETWORK}' is not JSON") from error
    run = training_of(path)
    if section is None and run is not None:
        section, scale = run['options'].get('network_g'), run['options'].get('scale')
    return (section, scale) if isinstance(section, dict) else None
