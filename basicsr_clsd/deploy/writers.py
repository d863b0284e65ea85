"""Weights alone, in the formats and under the names that other programs read."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from basicsr.archs.edsr_arch import EDSR
from torch import Tensor

from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.deployed_network import DeployedNetwork
from basicsr_clsd.networks.edsr_pytorch import with_edsr_pytorch_names
from basicsr_clsd.networks.weights import student_state
from basicsr_clsd.runtime.files import save, write_bytes


def write_safetensors(network: DeployedNetwork, path: Path, header: Mapping[str, str]) -> None:
    """Write a ``.safetensors`` file: weights under BasicSR's names, and texts as its header.

    Raises:
        UserError: safetensors is not installed.
    """
    if importlib.util.find_spec('safetensors') is None:
        raise UserError("safetensors is not installed; pip install 'basicsr-clsd[deploy]'")
    from safetensors.torch import save as serialised  # noqa: PLC0415  (an extra)

    write_bytes(serialised(_weights(network), dict(header)), path)


def write_basicsr(network: DeployedNetwork, path: Path) -> None:
    """Write ``{'params': weights}`` under BasicSR's names, as its networks are saved."""
    save({'params': _weights(network)}, path)


def write_edsr_pytorch(network: DeployedNetwork, path: Path) -> None:
    """Write a state dict under the names of EDSR-PyTorch.

    Raises:
        UserError: The network is no EDSR.
    """
    if not isinstance(network.module, EDSR):
        raise UserError(f'{network.arch}: EDSR-PyTorch has names for the weights of an EDSR alone')
    save({name: value.contiguous() for name, value in with_edsr_pytorch_names(network.module).items()}, path)


def _weights(network: DeployedNetwork) -> dict[str, Tensor]:
    return {name: value.cpu().contiguous() for name, value in student_state(network.module).items()}
