"""One door to all models: weights of every origin, ONNX files, names in the model zoo."""

import logging
from collections.abc import Sequence
from pathlib import Path

from basicsr_clsd import registry
from basicsr_clsd.config.components import Component
from basicsr_clsd.config.load import load as load_options
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.choice import AUTO, Choice, check_given, choose
from basicsr_clsd.inference.deployed_network import DeployedNetwork
from basicsr_clsd.inference.network import Network
from basicsr_clsd.inference.onnx_network import OnnxNetwork
from basicsr_clsd.inference.runtimes import ONNXRUNTIME, OPENVINO, PRECISIONS, TORCH
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.origin import KEYS, network_of
from basicsr_clsd.networks.weights import WeightsFile, load_weights
from basicsr_clsd.networks.zoo import ONNX, SUFFIXES, model_file
from basicsr_clsd.runtime.device import inference_device

OF_ONNX_FILES = (ONNXRUNTIME, OPENVINO)


def load(  # noqa: PLR0913
    source: str | Path,
    section: Component | None = None,
    scale: int | None = None,
    *,
    keys: Sequence[str] = KEYS,
    option: str = '',
    strict: bool = True,
    channels: int | None = None,
    runtime: str | None = None,
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
        runtime: What runs it, see :data:`~basicsr_clsd.inference.runtimes.PRECISIONS`; None: torch, or onnxruntime for
            an ONNX file.
        precision: One that the runtime has.
        gpu: Use one if there is one.

    Raises:
        UserError: One line that names the file or the key at fault.
    """
    path = model_file(source)
    if path.suffix.lower() == ONNX:
        if section is not None:
            raise UserError(f'{path}: an ONNX file needs no options; leave them out')
        runtime = runtime or ONNXRUNTIME
        if runtime not in OF_ONNX_FILES:
            raise UserError(f'{path}: an ONNX file runs by {" or ".join(OF_ONNX_FILES)}, not by {runtime}')
        check_given(runtime, precision)
        return OnnxNetwork(path, scale, channels, gpu, runtime, precision)
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
    runtime = runtime or TORCH
    check_given(runtime, precision)
    kind = precision if runtime == TORCH else 'fp32'
    network = TorchNetwork(module, section, scale, channels=channels, precision=kind, device=device)
    return network if runtime == TORCH else DeployedNetwork(network, runtime, precision)


def load_fastest(
    source: str | Path, section: Component | None, scale: int | None, runtime: str | None, precision: str, gpu: bool
) -> Choice:
    """Open a model in a runtime and a precision either of which may be ``auto``; see :func:`load`.

    Raises:
        UserError: See there.
    """
    onnx = model_file(source).suffix.lower() == ONNX
    every = OF_ONNX_FILES if onnx else tuple(PRECISIONS)
    runtimes = every if runtime == AUTO else (runtime or every[0],)
    check_given(AUTO if runtime == AUTO else runtimes[0], precision)
    plain = load(source, section, scale, channels=None, runtime=runtimes[0], gpu=gpu)

    def open_network(name: str, kind: str) -> Network:
        if isinstance(plain, TorchNetwork) and name == TORCH:
            return plain.in_precision(kind)
        if isinstance(plain, TorchNetwork):
            return DeployedNetwork(plain, name, kind)
        return load(source, section, scale, channels=None, runtime=name, precision=kind, gpu=gpu)

    return choose(open_network, runtimes, precision, plain.device)


def section_in(options: str | Path | None) -> tuple[Component | None, int | None]:
    """``network_g`` and ``scale`` of an options file, for :func:`load`; None twice without a file.

    Raises:
        UserError: The file is none of options.
    """
    if options is None:
        return None, None
    loaded = load_options(options)
    return loaded.network_g, loaded.scale
