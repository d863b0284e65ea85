"""One door to all models: weights of every origin, ONNX files, names in the model zoo."""

import logging
from collections.abc import Sequence
from pathlib import Path

from basicsr_clsd import registry
from basicsr_clsd.config.components import Component
from basicsr_clsd.config.load import load as load_options
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.network import Network
from basicsr_clsd.inference.onnx_network import OnnxNetwork
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.origin import KEYS, network_of
from basicsr_clsd.networks.weights import WeightsFile, load_weights
from basicsr_clsd.networks.zoo import ONNX, SUFFIXES, model_file
from basicsr_clsd.runtime.device import inference_device


def load(  # noqa: PLR0913
    source: str | Path,
    section: Component | None = None,
    scale: int | None = None,
    *,
    keys: Sequence[str] = KEYS,
    option: str = '',
    strict: bool = True,
    channels: int | None = None,
    precision: str = 'fp32',
    gpu: bool = True,
) -> Network:
    """Open a model.

    Args:
        source: Weights (``.pth``, ``.pt``, ``.safetensors``) of this project, BasicSR or EDSR-PyTorch, an ONNX file, or
            a name in the model zoo.
        section: ``network_g`` of the weights; None: found out, see :func:`~basicsr_clsd.networks.origin.network_of`.
        scale: Super-resolution factor, which goes with ``section``; of an ONNX file None: found out.
        keys: Where the weights are in their file, see :meth:`~basicsr_clsd.networks.weights.WeightsFile.weights`.
        option: Key of the options that ``keys`` are from, if they are from there.
        strict: See :func:`~basicsr_clsd.networks.weights.load_weights`.
        channels: Of the images: 3, or 1 for luma; None: found out.
        precision: ``fp32``, ``bf16`` or ``fp16``, of a network of weights.
        gpu: Use one if there is one.

    Raises:
        UserError: One line that names the file or the key at fault.
    """
    path = model_file(source)
    if path.suffix.lower() == ONNX:
        for what, given in (('options', section is not None), ('precision', precision != 'fp32')):
            if given:
                raise UserError(f'{path}: an ONNX file has its own {what}; leave them out')
        return OnnxNetwork(path, scale, channels, gpu)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f'{path}: not a model; its extension would be one of {", ".join(SUFFIXES)}')
    file = WeightsFile.read(path)
    if section is None or scale is None:
        section, scale = network_of(file)
    module = registry.build('archs', section, 'network_g')
    line = load_weights(module, file, keys, strict, option)
    if not strict:
        logging.getLogger('basicsr').warning(line)
    device = inference_device(gpu)
    return TorchNetwork(module, section, scale, channels=channels, precision=precision, device=device)


def section_in(options: str | Path | None) -> tuple[Component | None, int | None]:
    """``network_g`` and ``scale`` of an options file, for :func:`load`; None twice without a file.

    Raises:
        UserError: The file is none of options.
    """
    if options is None:
        return None, None
    loaded = load_options(options)
    return loaded.network_g, loaded.scale
